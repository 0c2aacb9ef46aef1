"""A connection to the broker that reconnects, resubscribes, validates messages and repeats publications.

Built on aiomqtt. Two of its habits are changed here, because the gateway must not lose an accepted task
(docs/decisions/0004-bus.md): messages are acknowledged when their handler has finished, not when they
arrive, and a publication that was not acknowledged is sent again after a reconnect.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import aiomqtt
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from splitplace.bus.background import BackgroundTasks
from splitplace.bus.client import BrokerClient, TakenOverError, acknowledge
from splitplace.bus.exchange import Exchange
from splitplace.bus.handlers import Handlers
from splitplace.bus.hints import hint
from splitplace.bus.identity import NO_SESSION, ClientIdentity, Session
from splitplace.bus.incoming import RawReceived, Received, RequestProperties, parse
from splitplace.bus.keepalive import Keepalive
from splitplace.bus.publication import Publication
from splitplace.bus.publisher import Publisher
from splitplace.bus.reconnect import MANY_BRIEF, Reconnect
from splitplace.bus.seldom import SeldomWarnings
from splitplace.bus.settings import Settings
from splitplace.bus.statistics import Statistics
from splitplace.bus.subscriber import Subscriber
from splitplace.messages.base import Message
from splitplace.messages.topics import Topic

__all__ = ["Bus", "RawReceived", "Received", "RequestProperties", "Statistics", "parse"]

log = logging.getLogger(__name__)

MessageT = TypeVar("MessageT", bound=Message)
AnswerT = TypeVar("AnswerT")

RECEIVE_MAXIMUM = 256
"""Unacknowledged messages that the broker may send. Mosquitto 2.0.11 ignores it."""

MAX_OUTSTANDING = 4096
"""Publications that may wait for the broker; beyond it, those of `send` are dropped and counted."""

_FORGOTTEN_AFTER_S = 20.0
_UNSUBSCRIBE_S = 1.0
_LAST_WORDS_S = 1.0


class Bus(Subscriber):
    """One MQTT 5 connection. Subscribe first, then enter it as an asynchronous context.

    Each of `subscribe` has a queue and a worker of its own, so a slow handler holds up no other topic;
    messages of one subscription are handled in order.
    """

    def __init__(
        self,
        settings: Settings,
        identifier: str,
        *,
        secret: str = "",
        will: tuple[str, bytes] | None = None,
        session: Session = NO_SESSION,
        receive_maximum: int = RECEIVE_MAXIMUM,
        keepalive_s: int | None = None,
        losses: SeldomWarnings | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        """A bus that is not connected yet.

        Args:
            settings: where the broker is.
            identifier: MQTT client id, unique among all clients of this prefix.
            secret: appended to the client id, and never logged: who knows the id can end the connection.
            will: topic (without prefix) and retained payload that the broker publishes if the process dies.
            session: what the broker keeps while the connection is away.
            receive_maximum: unacknowledged messages that the broker may send.
            keepalive_s: the broker notices silence after 1.5 times this. None = as in the settings.
            losses: where lost connections are logged, shared by the connections of a part.
            exchange: hands messages over to services in this process; None = all go through the broker.
        """
        statistics = Statistics()
        super().__init__(Handlers(settings.prefix, statistics, receive_maximum), exchange)
        self.settings, self.statistics = settings, statistics
        alive = Keepalive(keepalive_s or settings.keepalive_s)
        self._identity = ClientIdentity(
            settings, identifier, secret, will, session, receive_maximum, alive, _FORGOTTEN_AFTER_S
        )
        self._on_connect: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._client: BrokerClient | None = None
        self._warnings, self._losses = SeldomWarnings(log), losses or SeldomWarnings(log)
        self._publisher = Publisher(
            client=self._live_client,
            client_now=lambda: self._client,
            spawn=self.spawn_publication,
            statistics=self.statistics,
            warnings=self._warnings,
            forgotten_after_s=_FORGOTTEN_AFTER_S,
        )
        self._tasks, self._publications = BackgroundTasks(), BackgroundTasks()
        self._connected = asyncio.Event()
        self.connections = 0
        """How often a connection was made."""

    # --- before connecting -------------------------------------------------------------------------

    def on_connect(self, callback: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Call this after every (re)connect. Publish retained messages again: the broker may be a new one."""
        self._on_connect.append(callback)

    @contextlib.asynccontextmanager
    async def watching(
        self, topic: Topic[MessageT], callback: Callable[[Received[MessageT]], None], **parameters: str
    ) -> AsyncIterator[None]:
        """Subscribe to a topic while inside, also across reconnects.

        The callback gets valid messages as they arrive, without a queue in between. It must not block.
        """
        watch = self._handlers.watch(topic, callback, parameters)
        name = f"{self.settings.prefix}/{watch.filter}"
        try:
            if self._client is not None:
                with contextlib.suppress(aiomqtt.MqttError):  # then the next connection subscribes
                    await self._subscribe(self._client, watch.filter, watch.qos)
            yield
        finally:
            self._handlers.unwatch(watch)
            if self._client is not None and watch.filter not in self._handlers.filters:
                with contextlib.suppress(aiomqtt.MqttError):
                    await _answered(self._client, self._client.unsubscribe(name, timeout=_UNSUBSCRIBE_S))

    # --- life --------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        for name, work in self._handlers.start():
            self._tasks.spawn(work, name)
        self._tasks.spawn(self._stay_connected(), "connection")
        self._tasks.spawn(self._repeat_forgotten(), "repeating publications")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._publications.wait(_LAST_WORDS_S)
                if self._client is not None:
                    await self._client.sent()
        await self._publications.stop()
        self._handlers.stop()
        await self._tasks.stop()

    async def failed(self) -> NoReturn:
        """Wait for an error of the connection itself, not of a message, and raise it."""
        await self._tasks.failed()

    async def connected(self) -> None:
        """Wait until the broker has accepted the connection and all subscriptions."""
        await self._connected.wait()

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be reached now."""
        return self._connected.is_set()

    async def _stay_connected(self) -> None:
        reconnect, clock = Reconnect(), asyncio.get_running_loop().time
        while True:
            began_s, accepted_s = clock(), None
            try:
                if not self.connections:
                    await self._identity.forget(reconnect.patience_s)
                connection = self._identity.connected(reconnect.patience_s, self._handlers)
                async with connection as client:
                    accepted_s = clock()
                    self._handlers.connected(partial(acknowledge, client))
                    await self._welcome(client)
                    client.deliver()
                    await client.ended()
            except TakenOverError:
                self._warn_of_namesake("another client uses the name")
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                url, text = self.settings.broker, "broker %s: %s; trying again (%s)"
                self._losses.warn(str(error), text, url, error, hint(error, url))
            finally:
                self._connected.clear()
                self._client = None
                self._handlers.disconnected()
            if accepted_s is None:
                pause_s = reconnect.failed(after_s=clock() - began_s)
            else:
                pause_s = reconnect.broke(held_s=clock() - accepted_s)
                if reconnect.brief == MANY_BRIEF:  # Mosquitto 2.0.11 and rumqttd give no reason
                    self._warn_of_namesake("connections do not last; maybe another client uses the name")
            await asyncio.sleep(pause_s)

    def _warn_of_namesake(self, finding: str) -> None:
        self._losses.warn(
            "namesake",
            "broker %s: %s %s (end one of the two; nodes need different names: choose --node)",
            self.settings.broker,
            finding,
            self._identity.identifier,
        )

    async def _welcome(self, client: BrokerClient) -> None:
        client.pending_calls_threshold = 10 * MAX_OUTSTANDING
        subscribed: dict[str, int] = {}
        while (
            wanted := self._handlers.filters.items() - subscribed.items()
        ):  # a watch may begin while this waits
            for name, qos in wanted:
                await self._subscribe(client, name, qos)
            subscribed |= dict(wanted)
        self._client = client
        self._connected.set()
        self.statistics.reconnects += self.connections > 0
        self.connections += 1
        for callback in self._on_connect:
            self._tasks.spawn(callback(), "introduction")

    async def _subscribe(self, client: BrokerClient, name: str, qos: int) -> None:
        others_only = name in self._handlers.others_only
        options = self._identity.session.subscription(qos, others_only=others_only)
        filter_ = f"{self.settings.prefix}/{name}"
        for code in await _answered(client, client.subscribe(filter_, options=options)):
            if isinstance(code, ReasonCode) and code.is_failure:
                self.statistics.refused += 1
                self._warnings.warn(
                    name,
                    "the broker refuses the subscription to %s: %s (check its access list, and the user name "
                    "of this part)",
                    name,
                    code,
                )

    async def _live_client(self) -> BrokerClient:
        while self._client is None:
            await self._connected.wait()
        return self._client

    async def _repeat_forgotten(self) -> None:
        """Repeat publications that a living connection has not acknowledged for long."""
        while True:
            await asyncio.sleep(_FORGOTTEN_AFTER_S / 20)
            if self._client is not None:
                self._client.forget(_FORGOTTEN_AFTER_S)

    # --- outgoing ----------------------------------------------------------------------------------

    async def publish(self, topic: Topic[MessageT], message: MessageT, **parameters: str) -> bool:
        """Publish on a topic of the table and wait until the broker has it, however often that takes.

        Levels of the topic that the message has fields for are filled in from it. Return whether the broker
        took it, as `publish_raw` does.
        """
        name = topic.name_of(message, **parameters)
        if self._is_handed_over(topic, name, message):
            return True
        return await self.publish_raw(name, topic.encoded(message), qos=topic.qos, retain=topic.retain)

    def send(self, topic: Topic[MessageT], message: MessageT, **parameters: str) -> None:
        """Publish without waiting. Dropped and counted if too many publications wait already."""
        name = topic.name_of(message, **parameters)
        if self._is_handed_over(topic, name, message):
            return
        self.post(name, topic.encoded(message), qos=topic.qos, retain=topic.retain)

    def _is_handed_over(self, topic: Topic[MessageT], name: str, message: MessageT) -> bool:
        """Hand a message over to services in this process, if it is for them, and publish a copy."""
        exchange = self._exchange
        if exchange is None or not exchange.carries(topic):
            return False
        exchange.hand_over(topic, name, message)
        copy, qos = topic.encoded(message), exchange.copy_qos(topic)
        exchange.carrier(self).post(name, copy, qos=qos, retain=topic.retain)
        return True

    async def send_frame(self, topic: Topic[Any], frame: bytes, **parameters: str) -> None:
        """Publish a binary frame and wait for the broker, which slows down a sender that is too fast."""
        await self.publish_raw(topic.at(**parameters), frame, qos=topic.qos)

    def spawn_publication(self, publication: Coroutine[Any, Any, object]) -> None:
        """Run a publication in the background. Dropped and counted if too many wait already."""
        if len(self._publications) >= MAX_OUTSTANDING:
            self.statistics.overflowed += 1
            publication.close()
        else:
            self._publications.spawn(publication, "publication")

    async def publish_raw(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: Properties | None = None,
        absolute: bool = False,
    ) -> bool:
        """Publish bytes. Return whether the broker took them: it may refuse them, or never bear them.

        The prefix is put before all topics but `absolute` ones. QoS 0 is dropped while there is no
        connection; QoS 1 waits for one.
        """
        if qos == 0 and not self._connected.is_set():
            return False
        name = topic if absolute else f"{self.settings.prefix}/{topic}"
        return await self._publisher.publish(Publication(name, payload, qos, retain, properties))

    def post(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: Properties | None = None,
        absolute: bool = False,
        refused: Callable[[], None] | None = None,
    ) -> None:
        """Publish bytes without waiting. Dropped and counted if too many publications wait already.

        Args:
            topic: see `publish_raw`, as for the others.
            payload: the bytes.
            qos: quality of service.
            retain: whether the broker keeps it.
            properties: of MQTT 5.
            absolute: whether the topic has its prefix.
            refused: called if the broker does not take it.
        """
        name = topic if absolute else f"{self.settings.prefix}/{topic}"
        self._publisher.post(Publication(name, payload, qos, retain, properties), refused)


async def _answered(client: BrokerClient, question: Coroutine[Any, Any, AnswerT]) -> AnswerT:
    """Wait for the broker's answer while the connection lives; aiomqtt itself would wait on.

    Raises:
        aiomqtt.MqttError: the connection has ended.
    """
    asked, ended = asyncio.ensure_future(question), asyncio.ensure_future(client.ended())
    try:
        await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
        return await (asked if asked.done() else ended)
    finally:
        asked.cancel()
        ended.cancel()
        await asyncio.gather(asked, ended, return_exceptions=True)
