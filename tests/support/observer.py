"""A client that plays the rest of the system: it publishes whatever a test wants and keeps what it hears."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from splitplace.bus.connection import Bus, RawReceived, Received
from splitplace.bus.settings import Settings
from splitplace.messages.base import Message
from splitplace.messages.topics import Topic
from tests.support.waiting import until

MessageT = TypeVar("MessageT", bound=Message)


class Observer:
    """Subscribed to some topics; enter its `bus` to connect it."""

    def __init__(
        self,
        broker: str | Settings,
        *topics: Topic[Any],
        raw: Sequence[Topic[Any]] = (),
        identifier: str = "observer",
    ) -> None:
        """An observer that is not connected yet.

        Args:
            broker: URL, or settings with a prefix of their own.
            topics: valid messages on these are kept in the order of arrival.
            raw: payloads on these are kept as they are.
            identifier: MQTT client id.
        """
        settings = Settings(broker=broker) if isinstance(broker, str) else broker
        self.bus = Bus(settings, identifier)
        self._received: dict[str, list[Received[Any]]] = defaultdict(list)
        self._payloads: dict[str, list[RawReceived]] = defaultdict(list)
        for topic in topics:
            self.bus.subscribe(topic, self._keep(topic))
        for topic in raw:
            self.bus.subscribe_raw(topic, self._keep_raw(topic))

    def heard(self, topic: Topic[MessageT]) -> list[MessageT]:
        """Messages on a topic so far."""
        return [received.message for received in self._received[topic.pattern]]

    def frames(self, topic: Topic[MessageT]) -> list[tuple[MessageT, bytes]]:
        """Headers and bodies of the binary frames on a topic so far."""
        return [(frame.message, bytes(frame.body)) for frame in self._received[topic.pattern]]

    def payloads(self, topic: Topic[Any]) -> list[RawReceived]:
        """Payloads on a raw topic so far."""
        return self._payloads[topic.pattern]

    def forget(self, *topics: Topic[Any]) -> None:
        """Drop what was heard on these topics, or on all."""
        for kept in (self._received, self._payloads):
            for pattern in [topic.pattern for topic in topics] or list(kept):
                kept[pattern].clear()

    async def until(
        self,
        topic: Topic[MessageT],
        condition: Callable[[MessageT], object] = lambda _: True,
        seconds: float = 5.0,
    ) -> MessageT:
        """Wait for a message that meets a condition and return the first. It may have been heard before."""
        await until(lambda: any(condition(message) for message in self.heard(topic)), seconds)
        return next(message for message in self.heard(topic) if condition(message))

    async def publish(self, topic: Topic[MessageT], message: MessageT, **parameters: str) -> None:
        """Publish a message and wait for the broker."""
        await self.bus.publish(topic, message, **parameters)

    async def publish_raw(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish any bytes on a topic below the prefix."""
        await self.bus.publish_raw(topic, payload, qos=qos, retain=retain)

    def _keep(self, topic: Topic[MessageT]) -> Any:
        async def keep(received: Received[MessageT]) -> None:
            self._received[topic.pattern].append(received)

        return keep

    def _keep_raw(self, topic: Topic[Any]) -> Any:
        async def keep(received: RawReceived) -> None:
            self._payloads[topic.pattern].append(received)

        return keep
