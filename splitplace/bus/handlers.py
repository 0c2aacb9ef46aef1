"""Hands the messages of a connection to their handlers, and acknowledges them when those have finished."""

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from paho.mqtt.client import MQTTMessage
from pydantic import ValidationError

from splitplace.bus.background import TURN_MS, now_ms
from splitplace.bus.drain import Drain
from splitplace.bus.incoming import RawReceived, Received, parse
from splitplace.bus.statistics import Statistics
from splitplace.bus.subscriptions import (
    HandedOver,
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
        self._inbox: deque[tuple[Subscription, HandedOver]] = deque()
        """Messages from this process that are handled in the next turn of the loop."""
        self._is_turn_due = False
        self._context: contextvars.Context | None = None
        """In which they are handled; None while nothing is handled."""

    @property
    def filters(self) -> dict[str, int]:
        """The wanted subscriptions, without prefix, with their quality of service."""
        lasting = {entry.filter: entry.topic.qos for entry in self._subscriptions if not entry.is_local}
        return lasting | {watch.filter: watch.qos for watch in self._watches}

    @property
    def others_only(self) -> frozenset[str]:
        """The wanted subscriptions, without prefix, that leave out what this connection publishes."""
        return frozenset(entry.filter for entry in self._subscriptions if entry.others_only)

    def add(
        self,
        topic: Topic[Any],
        handle: Callable[[QueuedMessage], Awaitable[None]],
        parameters: Mapping[str, str],
        *,
        workers: int = 1,
        overflow: Callable[[RawReceived], None] | None = None,
        look: Callable[[RawReceived], Rest | None] | None = None,
        others_only: bool = False,
    ) -> None:
        """Handle the messages of a topic. See `Bus.subscribe` and its siblings."""
        chosen, pattern = subscription_filter(topic, parameters)
        self._subscriptions.append(
            Subscription(topic, chosen, pattern, handle, workers, overflow, look, others_only)
        )

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

    def add_local(
        self, topic: Topic[MessageT], handler: Callable[[Received[MessageT]], Awaitable[None]]
    ) -> Callable[[str, Received[MessageT]], None]:
        """Return what takes the messages of a topic from this process, for a handler."""
        subscription = Subscription(topic, *subscription_filter(topic, {}), _never, 1, is_local=True)
        self._subscriptions.append(subscription)

        def take(name: str, received: Received[MessageT]) -> None:
            self._statistics.received += 1
            subscription.queue.put_nowait(HandedOver(name, partial(handler, received)))

        return take

    def add_at_once(
        self,
        topic: Topic[MessageT],
        handler: Callable[[Received[MessageT]], Rest | None],
        parameters: Mapping[str, str],
        cleared: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        """Call a handler for the valid messages of a topic. See `Bus.subscribe_at_once`."""

        def at_once(name: str, message: MQTTMessage) -> Rest | None:
            if cleared is not None and not message.payload:
                cleared(topic.match(name) or {})
                return None
            received = self._validate(topic, name, message)
            return None if received is None else handler(received)

        self._subscriptions.append(
            Subscription(topic, *subscription_filter(topic, parameters), _never, 1, at_once=at_once)
        )

    def add_local_at_once(
        self, topic: Topic[MessageT], handler: Callable[[Received[MessageT]], Rest | None]
    ) -> Callable[[str, Received[MessageT]], None]:
        """Return what takes the messages of a topic from this process, for a handler as in `add_at_once`.

        They are handled in the next turn of the loop, in the order in which they came, whatever their topic.
        """
        subscription = Subscription(topic, *subscription_filter(topic, {}), _never, 1, is_local=True)
        self._subscriptions.append(subscription)

        def take(name: str, received: Received[MessageT]) -> None:
            self._statistics.received += 1
            self._inbox.append((subscription, HandedOver(name, partial(handler, received))))
            self._turn_soon()

        return take

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

    def start(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """Begin to handle messages. Yield the work of each worker and its name."""
        self._context = contextvars.copy_context()
        self._turn_soon()
        for subscription in self._subscriptions:
            for _ in range(subscription.workers):
                yield f"handling {subscription.filter}", self._work(subscription)

    def stop(self) -> None:
        """Handle nothing more that comes from this process."""
        self._context = None

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
            if not subscription.is_local and subscription.pattern.fullmatch(name):
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
        if subscription.at_once is not None:
            return self._is_left_at_once(subscription.at_once, subscription, arrival)
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

    def _is_left_at_once(
        self,
        at_once: Callable[[str, MQTTMessage], Rest | None],
        subscription: Subscription,
        arrival: QueuedMessage,
    ) -> bool:
        """Handle a message as it arrives. Return whether something of it waits for a worker now."""
        try:
            arrival.rest = at_once(arrival.name, arrival.message)
        except Exception:  # as in `dispatch`
            self._statistics.rejected += 1
            log.exception("handling a message on %s", arrival.name)
        if arrival.rest is None:
            return False
        if not self._room.take(len(arrival.message.payload)):
            self._statistics.overflowed += 1
            return False
        subscription.queue.put_nowait(arrival)
        return True

    def _turn_soon(self) -> None:
        if self._context is not None and self._inbox and not self._is_turn_due:
            self._is_turn_due = True
            asyncio.get_running_loop().call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        """Handle what was handed over, for a turn."""
        self._is_turn_due = False
        began_ms = now_ms()
        while self._inbox and self._context is not None and now_ms() - began_ms <= TURN_MS:
            subscription, arrival = self._inbox.popleft()
            try:
                rest = arrival.rest()
            except Exception:  # as in `dispatch`
                self._statistics.rejected += 1
                log.exception("handling a message on %s", arrival.name)
            else:
                if rest is not None:
                    subscription.queue.put_nowait(HandedOver(arrival.name, rest))
        self._turn_soon()

    async def _work(self, subscription: Subscription) -> None:
        while True:
            # Neither `get` nor a handler that awaits nothing gives others a turn.
            await subscription.turn.end_if_over()
            arrival = await subscription.queue.get()
            try:
                if arrival.rest is not None:
                    await arrival.rest()
                elif isinstance(arrival, QueuedMessage):
                    await subscription.handle(arrival)
            except Exception:  # as in `dispatch`
                self._statistics.rejected += 1
                log.exception("handling a message on %s", arrival.name)
            if isinstance(arrival, HandedOver):
                continue
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


async def _never(_: QueuedMessage) -> None:
    raise AssertionError("nothing waits for a worker but what a handler has left to do")
