"""A connection to the broker that reconnects, resubscribes, validates what comes in and repeats what failed.

Built on aiomqtt. Two of its habits are changed here, because the gateway must not lose an accepted task
(docs/decisions/0004-bus.md): messages are acknowledged when their handler has finished, not when they
arrive, and a publication that was not acknowledged is sent again after a reconnect.
"""

import asyncio
import contextlib
import logging
import random
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import ValidationError

from bus.settings import Settings
from messages import limits
from messages.base import Message
from messages.frames import FrameError, unpack
from messages.topics import Topic

log = logging.getLogger(__name__)

MessageT = TypeVar("MessageT", bound=Message)

RECEIVE_MAXIMUM = 256
"""Unacknowledged messages the broker may have on the way to us. Mosquitto 2.0.11 does not keep to it."""

MAX_HELD_MESSAGES = 50_000
MAX_HELD_BYTES = 128 * limits.MEBIBYTE
"""What may wait for its handlers; beyond either, messages are dropped and counted."""

MAX_OUTSTANDING = 4096
"""Publications waiting for the broker; beyond it, fire-and-forget ones are dropped and counted."""

_MAX_CALLS = 64
"""Publications on the way to the broker at a time: aiomqtt's cost of each grows with their number."""

_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 2.0
_FORGOTTEN_AFTER_S = 20.0
_UNSUBSCRIBE_S = 1.0
_END_S = 1.0

# Without this and `_acknowledge_tcp`, TCP holds messages back for 40 ms a hop (docs/decisions/0004-bus.md).
_SOCKET_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)


@dataclass(frozen=True, slots=True)
class Received(Generic[MessageT]):
    """A valid message: its topic's parameters agree with its fields."""

    parameters: Mapping[str, str]
    message: MessageT
    body: memoryview
    """What follows the header of a binary frame; empty otherwise."""


@dataclass(frozen=True, slots=True)
class RequestProperties:
    """What an MQTT 5 client may say beside its payload."""

    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = None
    user: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawReceived:
    """A message whose payload the handler decodes itself."""

    parameters: Mapping[str, str]
    payload: bytes
    properties: RequestProperties


@dataclass(slots=True)
class Statistics:
    """What a bus has seen since it was made."""

    received: int = 0
    rejected: int = 0
    overflowed: int = 0
    reconnects: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


Handler = Callable[[Received[Any]], Awaitable[None]]
RawHandler = Callable[[RawReceived], Awaitable[None]]


@dataclass(slots=True)
class _Subscription:
    topic: Topic[Any]
    filter: str
    pattern: re.Pattern[str]
    handle: Callable[[str, aiomqtt.Message], Awaitable[None]]
    queue: asyncio.Queue[tuple[str, aiomqtt.Message, aiomqtt.Client]]
    workers: int


@dataclass(frozen=True, slots=True)
class _Watch:
    filter: str
    pattern: re.Pattern[str]
    handle: Callable[[str, aiomqtt.Message], None]
    qos: int


class Bus:
    """One MQTT 5 connection. Subscribe first, then enter it as an asynchronous context.

    Each subscription has a queue and a worker of its own, so a slow handler holds up no other topic;
    messages of one subscription are handled in order.
    """

    def __init__(
        self,
        settings: Settings,
        identifier: str,
        *,
        will: tuple[str, Message] | None = None,
        session_expiry_s: int = 0,
        receive_maximum: int = RECEIVE_MAXIMUM,
        keepalive_s: int = 2,
    ) -> None:
        """A bus that is not connected yet.

        Args:
            settings: where the broker is.
            identifier: MQTT client id, unique among all clients.
            will: topic (without prefix) and retained message that the broker publishes when we vanish.
            session_expiry_s: how long the broker keeps messages for us while we are away; 0 for not at all.
            receive_maximum: unacknowledged messages on the way to us.
            keepalive_s: the broker notices our silence after 1.5 times this.
        """
        self.settings = settings
        self.statistics = Statistics()
        self._identifier = identifier
        self._will = will
        self._session_expiry_s = session_expiry_s
        self._receive_maximum = receive_maximum
        self._keepalive_s = keepalive_s
        self._subscriptions: list[_Subscription] = []
        self._watches: list[_Watch] = []
        self._on_connect: list[Callable[[], Awaitable[None]]] = []
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()
        self._waiting: set[asyncio.Timeout] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._outstanding: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._held_messages = 0
        self._held_bytes = 0

    # --- before connecting -------------------------------------------------------------------------

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

        async def handle(name: str, message: aiomqtt.Message) -> None:
            received = self._validate(topic, name, message)
            if received is not None:
                await handler(received)

        self._add(topic, handle, parameters)

    def subscribe_raw(
        self, topic: Topic[Any], handler: RawHandler, *, workers: int = 1, **parameters: str
    ) -> None:
        """Hand every message of a topic to a handler that decodes it itself, whatever its size.

        More than one worker handles that many messages at once, in no particular order.
        """

        async def handle(name: str, message: aiomqtt.Message) -> None:
            await handler(RawReceived(topic.match(name) or {}, message.payload, _properties(message)))

        self._add(topic, handle, parameters, workers)

    def on_connect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call this after every (re)connect: what is retained must be said again, the broker may be new."""
        self._on_connect.append(callback)

    def _add(
        self,
        topic: Topic[Any],
        handle: Callable[[str, aiomqtt.Message], Awaitable[None]],
        parameters: Mapping[str, str],
        workers: int = 1,
    ) -> None:
        chosen, pattern = _filter(topic, parameters)
        queue: asyncio.Queue[tuple[str, aiomqtt.Message, aiomqtt.Client]] = asyncio.Queue()
        self._subscriptions.append(_Subscription(topic, chosen, pattern, handle, queue, workers))

    @contextlib.asynccontextmanager
    async def watching(
        self, topic: Topic[MessageT], callback: Callable[[Received[MessageT]], None], **parameters: str
    ) -> AsyncIterator[None]:
        """Subscribed to a topic while inside, also across reconnects; for what is wanted only for a while.

        The callback gets valid messages as they arrive. It must not block, and what it keeps it must bound
        itself: there is no queue in between.
        """

        def handle(name: str, message: aiomqtt.Message) -> None:
            received = self._validate(topic, name, message)
            if received is not None:
                callback(received)

        watch = _Watch(*_filter(topic, parameters), handle, topic.qos)
        self._watches.append(watch)
        name = f"{self.settings.prefix}/{watch.filter}"
        try:
            if self._client is not None:
                with contextlib.suppress(aiomqtt.MqttError):  # then the next connection subscribes
                    await self._client.subscribe(name, qos=watch.qos)
            yield
        finally:
            self._watches.remove(watch)
            if self._client is not None and watch.filter not in self._filters():
                with contextlib.suppress(aiomqtt.MqttError):
                    await self._client.unsubscribe(name, timeout=_UNSUBSCRIBE_S)

    # --- life --------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        for subscription in self._subscriptions:
            for _ in range(subscription.workers):
                self._spawn(self._work(subscription), f"bus {subscription.filter}")
        self._spawn(self._stay_connected(), "bus connection")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.gather(*self._outstanding, return_exceptions=True)
        while ending := {*self._outstanding, *self._tasks}:
            for task in ending:
                task.cancel()  # once more where aiomqtt swallowed the first: see `publish_raw`
            ended, _ = await asyncio.wait(ending, timeout=_END_S)
            await asyncio.gather(*ended, return_exceptions=True)

    async def connected(self) -> None:
        """Wait until the broker has accepted the connection and all subscriptions."""
        await self._connected.wait()

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be reached now."""
        return self._connected.is_set()

    def _spawn(self, work: Any, name: str) -> None:  # noqa: ANN401 - any coroutine
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stay_connected(self) -> None:
        pause = _FIRST_RETRY_S
        while True:
            try:
                async with self._new_client() as client:
                    await self._welcome(client)
                    pause = _FIRST_RETRY_S
                    async for message in client.messages:
                        self._dispatch(client, message)
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                log.warning("broker %s: %s; trying again", self.settings.broker, error)
            finally:
                self._connected.clear()
                self._client = None
                for waiting in self._waiting:
                    waiting.reschedule(0.0)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, _LAST_RETRY_S)

    async def _welcome(self, client: aiomqtt.Client) -> None:
        client.pending_calls_threshold = 10 * MAX_OUTSTANDING
        client._client.manual_ack_set(True)  # noqa: FBT003, SLF001 - aiomqtt has no manual acknowledgement
        subscribed: dict[str, int] = {}
        while wanted := self._filters().items() - subscribed.items():  # a watch may begin while this waits
            for name, qos in wanted:
                await client.subscribe(f"{self.settings.prefix}/{name}", qos=qos)
            subscribed |= dict(wanted)
        self._client = client
        self._connected.set()
        self.statistics.reconnects += self._connections > 0
        self._connections += 1
        for callback in self._on_connect:
            self._spawn(callback(), "bus on_connect")

    def _filters(self) -> dict[str, int]:
        """What to be subscribed to, and with which quality of service."""
        lasting = {entry.filter: entry.topic.qos for entry in self._subscriptions}
        return lasting | {watch.filter: watch.qos for watch in self._watches}

    def _new_client(self) -> aiomqtt.Client:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = self._receive_maximum
        properties.MaximumPacketSize = limits.MAX_PACKET_BYTES
        properties.SessionExpiryInterval = self._session_expiry_s
        will = None
        if self._will is not None:
            topic, message = self._will
            payload = message.model_dump_json().encode()
            will = aiomqtt.Will(f"{self.settings.prefix}/{topic}", payload, qos=1, retain=True)
        password = self.settings.password
        return aiomqtt.Client(
            self.settings.host,
            self.settings.port,
            username=self.settings.username,
            password=password.get_secret_value() if password else None,
            identifier=self._identifier,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=will,
            clean_start=self._session_expiry_s == 0,
            keepalive=self._keepalive_s,
            properties=properties,
            tls_context=self.settings.tls_context(),
            timeout=_FORGOTTEN_AFTER_S,
            socket_options=_SOCKET_OPTIONS,
            max_concurrent_outgoing_calls=_MAX_CALLS,
        )

    # --- incoming ----------------------------------------------------------------------------------

    def _dispatch(self, client: aiomqtt.Client, message: aiomqtt.Message) -> None:
        _acknowledge_tcp(client)
        self.statistics.received += 1
        self.statistics.received_bytes += len(message.payload)
        name = message.topic.value.removeprefix(f"{self.settings.prefix}/")
        for watch in [watch for watch in self._watches if watch.pattern.fullmatch(name)]:
            try:
                watch.handle(name, message)
            except Exception:  # as in `_work`
                self.statistics.rejected += 1
                log.exception("handling a message on %s", name)
        for subscription in self._subscriptions:
            if subscription.pattern.fullmatch(name):
                size = len(message.payload)
                if self._held_messages >= MAX_HELD_MESSAGES or self._held_bytes + size > MAX_HELD_BYTES:
                    self.statistics.overflowed += 1
                    break
                self._held_messages += 1
                self._held_bytes += size
                subscription.queue.put_nowait((name, message, client))
                return
        _acknowledge(client, message)

    async def _work(self, subscription: _Subscription) -> None:
        while True:
            name, message, client = await subscription.queue.get()
            try:
                await subscription.handle(name, message)
            except Exception:  # one message must not end a service, whatever is wrong with it
                self.statistics.rejected += 1
                log.exception("handling a message on %s", name)
            self._held_messages -= 1
            self._held_bytes -= len(message.payload)
            if client is self._client:
                _acknowledge(client, message)

    def _validate(
        self, topic: Topic[MessageT], name: str, message: aiomqtt.Message
    ) -> Received[MessageT] | None:
        try:
            return parse(topic, name, message.payload)
        except (ValidationError, FrameError) as error:
            self.statistics.rejected += 1
            log.debug("rejected a message on %s: %s", name, error)
            return None

    # --- outgoing ----------------------------------------------------------------------------------

    async def publish(self, topic: Topic[MessageT], message: MessageT, **parameters: str) -> None:
        """Publish on a topic of the table and wait until the broker has it, however often that takes.

        Levels of the topic that the message has fields for are filled in from it.
        """
        name = topic.at(**self._fill(topic, message, parameters))
        await self.publish_raw(name, message.model_dump_json().encode(), qos=topic.qos, retain=topic.retain)

    def send(self, topic: Topic[MessageT], message: MessageT, **parameters: str) -> None:
        """As `publish`, without waiting. Dropped and counted where too much waits already."""
        self.spawn_publication(self.publish(topic, message, **parameters))

    async def send_frame(self, topic: Topic[Any], frame: bytes, **parameters: str) -> None:
        """Publish a binary frame and wait for the broker: the wait is what holds a fast sender back."""
        await self.publish_raw(topic.at(**parameters), frame, qos=topic.qos)

    def spawn_publication(self, publication: Any) -> None:  # noqa: ANN401 - any coroutine
        """Let a publication run by itself."""
        if len(self._outstanding) >= MAX_OUTSTANDING:
            self.statistics.overflowed += 1
            publication.close()
            return
        task = asyncio.create_task(publication)
        self._outstanding.add(task)
        task.add_done_callback(self._outstanding.discard)

    @staticmethod
    def _fill(topic: Topic[Any], message: Message, parameters: Mapping[str, str]) -> dict[str, str]:
        fields = {name: getattr(message, name) for name in topic.parameters if hasattr(message, name)}
        return fields | dict(parameters)

    async def publish_raw(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: Properties | None = None,
        absolute: bool = False,
    ) -> None:
        """Publish bytes; `absolute` topics are taken as they are, others stand below the prefix.

        QoS 0 is dropped while there is no connection; QoS 1 waits for one.
        """
        name = topic if absolute else f"{self.settings.prefix}/{topic}"
        cancellations = _cancellations()
        while True:
            if qos == 0 and not self._connected.is_set():
                return
            await self._connected.wait()
            client = self._client
            if client is None:
                continue
            try:
                async with asyncio.timeout(_FORGOTTEN_AFTER_S) as waiting:
                    self._waiting.add(waiting)
                    try:
                        await client.publish(name, payload, qos=qos, retain=retain, properties=properties)
                    finally:
                        self._waiting.discard(waiting)
            except (TimeoutError, aiomqtt.MqttError) as error:
                log.debug("publishing on %s: %r; trying again", name, error)
                if self._connected.is_set():
                    await asyncio.sleep(_FIRST_RETRY_S)
            else:
                _acknowledge_tcp(client)
                self.statistics.sent_bytes += len(payload)
                if _cancellations() > cancellations:
                    raise asyncio.CancelledError  # Python 3.11's wait_for, in aiomqtt, may swallow one
                return


def parse(topic: Topic[MessageT], name: str, payload: bytes) -> Received[MessageT]:
    """A message of a topic of the table, checked against the topic it came on.

    Args:
        topic: the table's entry.
        name: the topic it came on, without prefix.
        payload: JSON or a binary frame, as the entry says.

    Raises:
        FrameError: too big, a broken frame, or fields that contradict the topic.
        ValidationError: not a valid message of the topic's type.
    """
    parameters = topic.match(name)
    if parameters is None or len(payload) > topic.max_bytes:
        msg = f"{len(payload)} bytes on {name} (limit {topic.max_bytes})"
        raise FrameError(msg)
    body = memoryview(b"")
    if topic.encoding == "frame":
        content, body = unpack(topic.message, payload)
    else:
        content = topic.message.model_validate_json(payload)
    forged = [key for key, value in parameters.items() if getattr(content, key, value) != value]
    if forged:
        msg = f"{forged[0]} in the message is not the one in its topic {name}"
        raise FrameError(msg)
    return Received(parameters, content, body)


def _filter(topic: Topic[Any], parameters: Mapping[str, str]) -> tuple[str, re.Pattern[str]]:
    """The subscription filter of a topic with some levels fixed, and the pattern of names that it lets in."""
    wildcards = dict.fromkeys(topic.parameters, "+")
    chosen = topic.at(**(wildcards | dict(parameters)))
    return chosen, re.compile(re.escape(chosen).replace(r"\+", "[^/]+"))


def _cancellations() -> int:
    """How often the running task was asked to stop."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _acknowledge(client: aiomqtt.Client, message: aiomqtt.Message) -> None:
    if message.qos:
        client._client.ack(message.mid, message.qos)  # noqa: SLF001 - see the module's docstring


def _acknowledge_tcp(client: aiomqtt.Client) -> None:
    """Sends the TCP acknowledgement of what was just read now, not in 40 ms.

    A broker that leaves Nagle's algorithm on (rumqttd always, Mosquitto by default) holds its next message
    back until then. Linux forgets the option after each use.
    """
    connection = client._client.socket()  # noqa: SLF001 - aiomqtt does not show its socket
    if isinstance(connection, socket.socket) and sys.platform == "linux":
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _properties(message: aiomqtt.Message) -> RequestProperties:
    given = message.properties
    if given is None:
        return RequestProperties()
    return RequestProperties(
        response_topic=getattr(given, "ResponseTopic", None),
        correlation_data=getattr(given, "CorrelationData", None),
        content_type=getattr(given, "ContentType", None),
        user=dict(getattr(given, "UserProperty", ())),
    )
