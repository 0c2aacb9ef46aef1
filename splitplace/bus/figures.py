"""The retained figures of a service: they vanish with its process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitplace.bus.background import now_ms
from splitplace.bus.connection import Bus
from splitplace.bus.incoming import RawReceived
from splitplace.messages.base import Message
from splitplace.messages.topics import Topic

MessageT = TypeVar("MessageT", bound=Message)

EXPIRY_S = 60
"""How long the broker keeps a figure that nobody publishes again. The embedded broker keeps it for good."""
REPEAT_MS = 20_000.0
"""A figure that did not change is published again after this time, if it expires after `EXPIRY_S`; another
after the same part of its time."""
REPEAT_PERIOD_S = 2.0
MAX_LEFTOVERS = 1000
"""Leftovers that are noted between two rounds; the others are found at the next connection."""


@dataclass(slots=True)
class _Figure:
    payload: bytes
    expiry_s: int
    published_ms: float

    @property
    def due_ms(self) -> float:
        """When it is published again."""
        return self.published_ms + REPEAT_MS * self.expiry_s / EXPIRY_S


class Figures:
    """What a service tells dashboards on retained topics that nobody else publishes on.

    A process that ends clears its figures; those of one that was killed expire, and the next process of its
    name clears what it finds and does not publish itself.
    """

    def __init__(self, bus: Bus, now: Callable[[], float] = now_ms) -> None:
        """Publish on this connection, which is not connected yet.

        Args:
            bus: knows when it is connected.
            now: a clock in ms that never goes back.
        """
        self._bus, self._now = bus, now
        self._figures: dict[str, _Figure] = {}
        self._leftovers: dict[str, None] = {}
        self._expiries_s: dict[str, int] = {}

    def own(self, topic: Topic[Any], *, expiry_s: int = EXPIRY_S) -> None:
        """Clear what an earlier process left on a topic.

        Args:
            topic: where only this service publishes.
            expiry_s: how long the broker keeps its figures if this process is killed.
        """
        self._expiries_s[topic.pattern] = expiry_s

        async def note_leftover(received: RawReceived) -> None:
            if received.retained and received.payload and len(self._leftovers) < MAX_LEFTOVERS:
                self._leftovers[topic.at(**received.parameters)] = None

        self._bus.subscribe_raw(topic, note_leftover, others_only=True)

    def publish(self, topic: Topic[MessageT], message: MessageT, **parameters: str) -> None:
        """Publish a figure, and again before it expires, until it is cleared."""
        name = topic.name_of(message, **parameters)
        self._publish(name, topic.encoded(message), self._expiries_s.get(topic.pattern, EXPIRY_S))

    def clear(self, topic: Topic[Any], **parameters: str) -> None:
        """Take a figure away."""
        self._clear(topic.at(**parameters))

    async def repeat(self) -> None:
        """Publish again what would expire, and clear leftovers. Call this every `REPEAT_PERIOD_S`."""
        for name in self._leftovers:
            if name not in self._figures:
                self._clear(name)
        self._leftovers.clear()
        now_ms = self._now()
        for name, figure in self._figures.items():
            if figure.due_ms <= now_ms:
                self._publish(name, figure.payload, figure.expiry_s)

    async def publish_all_again(self) -> None:
        """Publish everything: the broker may be a new one."""
        for name, figure in self._figures.items():
            self._publish(name, figure.payload, figure.expiry_s)

    def clear_all(self) -> None:
        """Take all figures away: the process ends."""
        for name in list(self._figures):
            self._clear(name)

    def _publish(self, name: str, payload: bytes, expiry_s: int) -> None:
        self._figures[name] = _Figure(payload, expiry_s, self._now())
        expiring = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        expiring.MessageExpiryInterval = expiry_s
        self._bus.post(name, payload, qos=0, retain=True, properties=expiring)

    def _clear(self, name: str) -> None:
        self._figures.pop(name, None)
        self._bus.post(name, b"", qos=0, retain=True)
