"""Subscriptions of a connection, and the messages that wait for their handlers."""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from paho.mqtt.client import MQTTMessage

from splitplace.bus.background import Turn, now_ms
from splitplace.bus.incoming import RawReceived, request_properties
from splitplace.messages import limits
from splitplace.messages.topics import Topic

Rest = Callable[[], Awaitable[None]]
"""What a worker does with a message after the first look at it."""

MAX_HELD_MESSAGES = 50_000
MAX_HELD_BYTES = 128 * limits.MEBIBYTE
"""Bounds of the messages that wait for handlers; beyond either, messages are dropped and counted."""


@dataclass(slots=True)
class Receipt:
    """A QoS 1 message that arrived on one connection."""

    packet: int
    handled: bool = False


@dataclass(slots=True)
class Receipts:
    """The unacknowledged messages of one connection. Pure.

    They are acknowledged in the order of arrival, as MQTT 5 demands (4.6.0-2), although handlers end in any
    order. rumqttd stops delivering to a client that acknowledges out of order.
    """

    acknowledge: Callable[[int], None]
    """Tell the broker that the packet of this number was handled."""
    _open: deque[Receipt] = field(default_factory=deque)

    def arrived(self, packet: int) -> Receipt:
        """Note a message that will have to be acknowledged."""
        receipt = Receipt(packet)
        self._open.append(receipt)
        return receipt

    def __len__(self) -> int:
        """Return the number of unacknowledged messages."""
        return len(self._open)

    def handled(self, receipt: Receipt) -> None:
        """Acknowledge this message and those that waited for it, unless it waits for an earlier one."""
        receipt.handled = True
        while self._open and self._open[0].handled:
            self.acknowledge(self._open.popleft().packet)


@dataclass(slots=True)
class Room:
    """Room for the messages of a connection that wait for handlers. Pure."""

    messages: int = 0
    size: int = 0

    def take(self, size: int) -> bool:
        """Take room for a message of this many bytes. Return False if it does not fit."""
        if self.messages >= MAX_HELD_MESSAGES or self.size + size > MAX_HELD_BYTES:
            return False
        self.messages += 1
        self.size += size
        return True

    def give_back(self, size: int) -> None:
        """A message of this many bytes was handled."""
        self.messages -= 1
        self.size -= size


@dataclass(slots=True)
class QueuedMessage:
    """A message that waits for its handler."""

    name: str
    """Topic without prefix."""
    message: MQTTMessage
    receipts: Receipts
    """The receipts of the connection it came on."""
    receipt: Receipt | None
    """None for QoS 0."""
    arrived_ms: float = field(default_factory=now_ms)
    """When it was read from the connection."""
    since_ms: float = 0.0
    """When messages began to wait that were not read at once; see `RawReceived`."""
    rest: Rest | None = None
    """What a look at it has left to do; None if nobody looked."""

    def raw(self, topic: Topic[Any]) -> RawReceived:
        """Return it for a handler that decodes it itself."""
        properties = request_properties(self.message)
        parameters = topic.match(self.name) or {}
        payload = bytes(self.message.payload)  # no copy: paho makes bytes of it
        return RawReceived(
            parameters,
            payload,
            properties,
            self.message.retain,
            self.arrived_ms,
            self.since_ms,
            redelivered=bool(self.message.dup),
        )

    def acknowledge(self) -> None:
        """Tell the broker that the message was handled, or never will be."""
        if self.receipt is not None:
            self.receipts.handled(self.receipt)


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A message from a service in the same process, on its way to its handler."""

    name: str
    """Topic without prefix."""
    rest: Callable[[], Any]
    """Handles it; awaited by a worker, or called in a turn of the loop."""


@dataclass(slots=True)
class Subscription:
    """A handler for the messages of a topic, with its own queue and workers."""

    topic: Topic[Any]
    filter: str
    pattern: re.Pattern[str]
    handle: Callable[[QueuedMessage], Awaitable[None]]
    workers: int
    overflow: Callable[[RawReceived], None] | None = None
    """Told of each message that is dropped because the queue is full."""
    look: Callable[[RawReceived], Rest | None] | None = None
    """Looks at each message as it arrives. Returns what a worker has to do; None if nothing is left."""
    others_only: bool = False
    """Whether the broker leaves out what this connection publishes, if it can."""
    at_once: Callable[[str, MQTTMessage], Rest | None] | None = None
    """Handles each message by its name as it arrives; returns as `look`."""
    is_local: bool = False
    """Whether its messages come from this process only, and not from the broker."""
    queue: asyncio.Queue[QueuedMessage | HandedOver] = field(default_factory=asyncio.Queue)
    turn: Turn = field(default_factory=Turn)
    """Shared by its workers: many of them have no longer turn than one."""


@dataclass(frozen=True, slots=True)
class TopicWatch:
    """A temporary subscription whose handler is called as messages arrive."""

    filter: str
    pattern: re.Pattern[str]
    handle: Callable[[str, MQTTMessage], None]
    qos: int


def subscription_filter(topic: Topic[Any], parameters: Mapping[str, str]) -> tuple[str, re.Pattern[str]]:
    """Return the filter of a topic with some levels fixed, and a pattern of the names it matches."""
    wildcards = dict.fromkeys(topic.parameters, "+")
    chosen = topic.at(**(wildcards | dict(parameters)))
    pattern = re.escape(chosen).replace(r"\+", topic.level)
    if topic.is_open:
        return f"{chosen}/#", re.compile(rf"{pattern}(/.*)?", re.DOTALL)
    return chosen, re.compile(pattern)
