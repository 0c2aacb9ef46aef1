"""Hands messages from service to service within one process, as the objects they are.

What is handed over is not subscribed to at the broker, so nothing comes back from there. Everybody else gets
a copy from the broker: onlookers may miss some while it is away, services elsewhere get them with QoS 1.
"""

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

from splitplace.bus.incoming import Received
from splitplace.messages.base import Message
from splitplace.messages.topics import (
    CLUSTER_MEMBERS,
    CLUSTER_NODE,
    JOB_ACCEPTED,
    JOB_DECIDED,
    JOB_FINISHED,
    JOB_LAGGING,
    JOB_LOST_REPLICA,
    JOB_PLACED,
    JOB_RESULT,
    JOB_SECOND_RUN,
    JOB_SETTLE,
    SERVICES,
    Topic,
)

if TYPE_CHECKING:
    from splitplace.bus.connection import Bus

MessageT = TypeVar("MessageT", bound=Message)

HANDED_OVER = (
    JOB_ACCEPTED,
    JOB_DECIDED,
    JOB_PLACED,
    JOB_LOST_REPLICA,
    JOB_LAGGING,
    JOB_SECOND_RUN,
    JOB_RESULT,
    JOB_SETTLE,
    JOB_FINISHED,
    CLUSTER_NODE,
    CLUSTER_MEMBERS,
)
"""Topics that only services publish on, and that nobody needs to watch for what others put there."""


class Exchange:
    """The services that share a process, and what each of them reads."""

    def __init__(self, services: Collection[str]) -> None:
        """Hand over nothing yet.

        Args:
            services: names of the services in this process.
        """
        here = frozenset(services)
        self._topics = {topic.pattern for topic in HANDED_OVER if here.issuperset(topic.publishers)}
        elsewhere = frozenset(SERVICES) - here
        self._read_elsewhere = {
            topic.pattern for topic in HANDED_OVER if elsewhere.intersection(topic.subscribers)
        }
        self._readers: defaultdict[str, list[Callable[[str, Received[Any]], None]]] = defaultdict(list)
        self._carriers: dict[tuple[str | None, ...], Bus] = {}

    def carries(self, topic: Topic[Any]) -> bool:
        """Whether everybody who publishes on a topic is in this process."""
        return topic.pattern in self._topics

    def add(self, topic: Topic[MessageT], reader: Callable[[str, Received[MessageT]], None]) -> None:
        """Give a reader the name and the message of everything on a topic that is carried."""
        self._readers[topic.pattern].append(reader)

    def hand_over(self, topic: Topic[MessageT], name: str, message: MessageT) -> None:
        """Give a message to all readers in this process."""
        received = Received(topic.match(name) or {}, message, memoryview(b""))
        for reader in self._readers[topic.pattern]:
            reader(name, received)

    def copy_qos(self, topic: Topic[Any]) -> int:
        """Return the quality of service of copies: onlookers may miss some, other services may not."""
        return topic.qos if topic.retain or topic.pattern in self._read_elsewhere else 0

    def carrier(self, bus: "Bus") -> "Bus":
        """Return the connection that brings a service's copies to the broker.

        Services with the same credentials share one, so that onlookers see the order of events.
        """
        settings = bus.settings
        login = settings.broker, settings.username, str(settings.certificate), settings.bound_client_id
        return self._carriers.setdefault(login, bus)
