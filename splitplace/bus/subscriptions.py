"""What a connection listens to."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiomqtt

from splitplace.bus.receipts import Receipt, Receipts
from splitplace.messages.topics import Topic


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message that waits for its handler."""

    name: str
    """Its topic, without prefix."""
    message: aiomqtt.Message
    receipts: Receipts
    """Of the connection it came on."""
    receipt: Receipt | None
    """None for QoS 0."""

    def acknowledge(self) -> None:
        """It was handled, or never will be."""
        if self.receipt is not None:
            self.receipts.handled(self.receipt)


@dataclass(slots=True)
class Subscription:
    """A handler for the messages of a topic, with a queue and workers of its own."""

    topic: Topic[Any]
    filter: str
    pattern: re.Pattern[str]
    handle: Callable[[str, aiomqtt.Message], Awaitable[None]]
    queue: asyncio.Queue[QueuedMessage]
    workers: int


@dataclass(frozen=True, slots=True)
class TopicWatch:
    """A look at the messages of a topic for a while, as they arrive."""

    filter: str
    pattern: re.Pattern[str]
    handle: Callable[[str, aiomqtt.Message], None]
    qos: int


def subscription_filter(topic: Topic[Any], parameters: Mapping[str, str]) -> tuple[str, re.Pattern[str]]:
    """The subscription filter of a topic with some levels fixed, and the pattern of names that it lets in."""
    wildcards = dict.fromkeys(topic.parameters, "+")
    chosen = topic.at(**(wildcards | dict(parameters)))
    return chosen, re.compile(re.escape(chosen).replace(r"\+", "[^/]+"))
