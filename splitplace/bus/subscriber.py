"""What a connection reads: handlers for the messages of topics."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from splitplace.bus.exchange import Exchange
from splitplace.bus.handlers import Handlers
from splitplace.bus.incoming import RawReceived, Received
from splitplace.bus.subscriptions import QueuedMessage, Rest
from splitplace.messages.base import Message
from splitplace.messages.topics import Topic

MessageT = TypeVar("MessageT", bound=Message)

RawHandler = Callable[[RawReceived], Awaitable[None]]


class Subscriber:
    """Takes handlers before its connection begins."""

    def __init__(self, handlers: Handlers, exchange: Exchange | None) -> None:
        """Read nothing yet.

        Args:
            handlers: where handlers are kept.
            exchange: hands messages over from services in this process; None = all come from the broker.
        """
        self._handlers = handlers
        self._exchange = exchange

    def subscribe(
        self,
        topic: Topic[MessageT],
        handler: Callable[[Received[MessageT]], Awaitable[None]],
        **parameters: str,
    ) -> None:
        """Hand every valid message of a topic to a handler, in order.

        `parameters` fix levels of the topic; the others are wildcards. Broken messages, and those whose
        fields contradict their topic, are counted and dropped.
        """
        if self._exchange is not None and not parameters and self._exchange.carries(topic):
            self._exchange.add(topic, self._handlers.add_local(topic, handler))
        else:
            self._handlers.add_valid(topic, handler, parameters)

    def subscribe_at_once(
        self,
        topic: Topic[MessageT],
        handler: Callable[[Received[MessageT]], Rest | None],
        *,
        cleared: Callable[[Mapping[str, str]], None] | None = None,
        **parameters: str,
    ) -> None:
        """Call a handler for every valid message of a topic as it arrives, without a queue in between.

        It must not block. What takes long it returns, for a worker; the message counts as handled when that
        has ended. `cleared` is called with the levels of a retained topic that somebody empties. Otherwise
        as `subscribe`.
        """
        if self._exchange is not None and not parameters and self._exchange.carries(topic):
            self._exchange.add(topic, self._handlers.add_local_at_once(topic, handler))
        else:
            self._handlers.add_at_once(topic, handler, parameters, cleared)

    def subscribe_raw(
        self,
        topic: Topic[Any],
        handler: RawHandler,
        *,
        workers: int = 1,
        overflow: Callable[[RawReceived], None] | None = None,
        others_only: bool = False,
        **parameters: str,
    ) -> None:
        """Hand every message of a topic to a handler that decodes it itself, whatever its size.

        More than one worker handles that many messages at once, in no particular order. What does not fit in
        the queue is handed to `overflow`, which must not block, and dropped. `others_only` leaves out what
        this connection publishes, where the broker can do that (the embedded one cannot).
        """

        async def handle(arrival: QueuedMessage) -> None:
            await handler(arrival.raw(topic))

        self._handlers.add(
            topic, handle, parameters, workers=workers, overflow=overflow, others_only=others_only
        )

    def subscribe_looking(
        self,
        topic: Topic[Any],
        look: Callable[[RawReceived], Rest | None],
        *,
        workers: int,
        overflow: Callable[[RawReceived], None],
        **parameters: str,
    ) -> None:
        """Look at every message of a topic as it is read, and leave to workers what that has left to do.

        `look` must not block. It returns None if it has handled the message. `workers` and `overflow` are as
        in `subscribe_raw`.
        """

        async def handle(_: QueuedMessage) -> None:
            raise AssertionError("a look returns what is left to do")

        self._handlers.add(topic, handle, parameters, workers=workers, overflow=overflow, look=look)
