"""Hands the messages of a connection to their handlers, and acknowledges them when those have finished."""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from paho.mqtt.client import MQTTMessage
from pydantic import ValidationError

from splitplace.bus.background import now_ms
from splitplace.bus.drain import Drain
from splitplace.bus.incoming import RawReceived, Received, parse
from splitplace.bus.statistics import Statistics
from splitplace.bus.subscriptions import (
    QueuedMessage,
    Receipts,
    Rest,
    Room,
    Subscription,
    TopicWatch,
    subscription_filter,
)
from splitplace.messages.base import Message
from splitplace.messages.frames import FrameError
from splitplace.messages.topics import Topic

log = logging.getLogger(__name__)

MessageT = TypeVar("MessageT", bound=Message)


class Handlers:
    """The subscriptions of a connection, with their queues and workers."""

    def __init__(self, prefix: str, statistics: Statistics, receive_maximum: int) -> None:
        """Handle nothing yet.

        Args:
            prefix: of all topics.
            statistics: counters to add to.
            receive_maximum: unacknowledged messages that the broker may send.
        """
        self._prefix = f"{prefix}/"
        self._statistics = statistics
        self._subscriptions: list[Subscription] = []
        self._watches: list[TopicWatch] = []
        self._receipts: Receipts | None = None
        self._drain = Drain(receive_maximum)
        self._receive_maximum = receive_maximum
        self._room = Room()

    @property
    def filters(self) -> dict[str, int]:
        """The wanted subscriptions, without prefix, with their quality of service."""
        lasting = {entry.filter: entry.topic.qos for entry in self._subscriptions}
        return lasting | {watch.filter: watch.qos for watch in self._watches}

    def add(
        self,
        topic: Topic[Any],
        handle: Callable[[QueuedMessage], Awaitable[None]],
        parameters: Mapping[str, str],
        *,
        workers: int = 1,
        overflow: Callable[[RawReceived], None] | None = None,
        look: Callable[[RawReceived], Rest | None] | None = None,
    ) -> None:
        """Handle the messages of a topic. See `Bus.subscribe` and its siblings."""
        chosen, pattern = subscription_filter(topic, parameters)
        self._subscriptions.append(Subscription(topic, chosen, pattern, handle, workers, overflow, look))

    def add_valid(
        self,
        topic: Topic[MessageT],
        handler: Callable[[Received[MessageT]], Awaitable[None]],
        parameters: Mapping[str, str],
    ) -> None:
        """Hand the valid messages of a topic to a handler."""

        async def handle(arrival: QueuedMessage) -> None:
            received = self._validate(topic, arrival.name, arrival.message)
            if received is not None:
                await handler(received)

        self.add(topic, handle, parameters)

    def watch(
        self,
        topic: Topic[MessageT],
        callback: Callable[[Received[MessageT]], None],
        parameters: Mapping[str, str],
    ) -> TopicWatch:
        """Hand the valid messages of a topic to a callback as they arrive."""

        def handle(name: str, message: MQTTMessage) -> None:
            received = self._validate(topic, name, message)
            if received is not None:
                callback(received)

        watch = TopicWatch(*subscription_filter(topic, parameters), handle, topic.qos)
        self._watches.append(watch)
        return watch

    def unwatch(self, watch: TopicWatch) -> None:
        """End a watch."""
        self._watches.remove(watch)

    def workers(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """Yield the work of each worker and its name."""
        for subscription in self._subscriptions:
            for _ in range(subscription.workers):
                yield f"handling {subscription.filter}", self._work(subscription)

    # --- a connection ------------------------------------------------------------------------------

    def connected(self, acknowledge: Callable[[int], None]) -> None:
        """A connection begins; `acknowledge` tells its broker that the packet of this number was handled."""
        self._receipts = Receipts(acknowledge)
        self._drain = Drain(self._receive_maximum)

    def disconnected(self) -> None:
        """The connection has ended: what came on it is handled, and acknowledged to nobody."""
        self._receipts = None

    def dispatch(self, message: MQTTMessage) -> None:
        """Take a message from the connection. Never fails: that would cost the connection."""
        if self._receipts is None:
            return
        self._statistics.received += 1
        self._statistics.received_bytes += len(message.payload)
        receipt = self._receipts.arrived(message.mid) if message.qos else None
        try:
            name = message.topic.removeprefix(self._prefix)
        except UnicodeDecodeError:
            name = ""  # matches nothing
        arrived_ms = now_ms()
        since_ms = self._drain.read(len(self._receipts), arrived_ms)
        arrival = QueuedMessage(name, message, self._receipts, receipt, arrived_ms, since_ms)
        for watch in [watch for watch in self._watches if watch.pattern.fullmatch(name)]:
            try:
                watch.handle(name, message)
            except Exception:  # no message may end a service
                self._statistics.rejected += 1
                log.exception("handling a message on %s", name)
        for subscription in self._subscriptions:
            if subscription.pattern.fullmatch(name):
                if self._is_left_to_workers(subscription, arrival):
                    return
                break
        arrival.acknowledge()

    def read(self, *, is_empty: bool) -> None:
        """A turn of reading has ended; `is_empty` says whether nothing more had come."""
        if self._receipts is not None:
            self._drain.ended(len(self._receipts), is_empty=is_empty)

    def _is_left_to_workers(self, subscription: Subscription, arrival: QueuedMessage) -> bool:
        """Look at a message as it arrives. Return whether it waits for a worker now."""
        raw = arrival.raw(subscription.topic) if subscription.look or subscription.overflow else None
        size = len(arrival.message.payload)
        has_room = self._room.take(size)
        is_left = has_room
        try:
            if not has_room:
                self._statistics.overflowed += 1
                if raw is not None and subscription.overflow is not None:
                    subscription.overflow(raw)
            elif raw is not None and subscription.look is not None:
                arrival.rest = subscription.look(raw)
                is_left = arrival.rest is not None
        except Exception:  # as in `dispatch`
            self._statistics.rejected += 1
            log.exception("handling a message on %s", arrival.name)
            is_left = False
        if is_left:
            subscription.queue.put_nowait(arrival)
        elif has_room:
            self._room.give_back(size)
        return is_left

    async def _work(self, subscription: Subscription) -> None:
        while True:
            # Neither `get` nor a handler that awaits nothing gives others a turn.
            await subscription.turn.end_if_over()
            arrival = await subscription.queue.get()
            try:
                if arrival.rest is not None:
                    await arrival.rest()
                else:
                    await subscription.handle(arrival)
            except Exception:  # as in `dispatch`
                self._statistics.rejected += 1
                log.exception("handling a message on %s", arrival.name)
            self._room.give_back(len(arrival.message.payload))
            if arrival.receipts is self._receipts:
                arrival.acknowledge()

    def _validate(self, topic: Topic[MessageT], name: str, message: MQTTMessage) -> Received[MessageT] | None:
        try:
            return parse(topic, name, bytes(message.payload))
        except (ValidationError, FrameError) as error:
            self._statistics.rejected += 1
            log.debug("rejected a message on %s: %s", name, error)
            return None
