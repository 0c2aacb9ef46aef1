"""The aiomqtt client of a connection, with what aiomqtt does not offer.

Manual and quick TCP acknowledgements, QoS 0 without an account, connection attempts that end with their
socket: for these this module, and no other, uses the inside of aiomqtt and the paho client in it
(docs/decisions/0004-bus.md).
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, Protocol, Self

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from typing_extensions import override

from splitplace.bus.batches import Batches
from splitplace.bus.publication import ConnectionLostError, Publication, RefusedError
from splitplace.bus.sockets import acknowledge_tcp, is_pending

_SLOTS = 20
"""Publications of any size in flight at a time. More would keep pings waiting on a slow link."""
_MAX_IN_FLIGHT = 256
"""Publications in flight at a time, small ones included."""
_MAX_WAITING = 4096
"""Small publications that may wait until others are acknowledged."""
_SMALL_BYTES = 16 * 1024
"""Publications up to this size do not wait for a slot."""

_SENT_POLL_S = 0.01

_ENDED = "the connection ended"

Ended = Callable[[Exception | None], None]
"""Told how a publication has ended: None if the broker has it."""

# Reason codes of MQTT 5 (2.4).
_SILENT = 0x8D
_TAKEN_OVER = 0x8E
_NOT_OUR_DOING = {
    0x00,  # our own goodbye
    0x89,  # server busy
    0x8B,  # server shutting down
    _SILENT,
    _TAKEN_OVER,
    0x98,  # administrative action
    0x9C,  # use another server
    0x9D,  # server moved
}

_TURN_S = 0.004
"""CPU time after which reading lets others run. On a busy machine, clock time would be a packet or two."""


class _LostSockets(logging.Filter):
    """Makes paho's errors about lost sockets debug messages: the connection itself warns of them, seldom."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith(("failed to receive on socket", "timeout on socket")):
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(record.levelno)


logging.getLogger("mqtt").addFilter(_LostSockets())


class TakenOverError(aiomqtt.MqttError):
    """The broker ended the connection because another client came with its client id."""


class Receiver(Protocol):
    """Gets what a client reads."""

    def dispatch(self, message: MQTTMessage) -> None:
        """Take a message. Must not fail."""

    def read(self, *, is_empty: bool) -> None:
        """A turn of reading has ended; `is_empty` says whether nothing more had come."""


class BrokerClient(aiomqtt.Client):
    """An aiomqtt client that notices the end of its socket at any time."""

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - as aiomqtt's
        manual_ack: bool = True,
        receiver: Receiver | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """A client that is not connected yet.

        Args:
            arguments: as aiomqtt's.
            manual_ack: whether messages are acknowledged by `acknowledge`, not as they arrive.
            receiver: gets each message as it is read, once `deliver` was called. Without it messages are in
                `messages`.
            options: as aiomqtt's.
        """
        super().__init__(*arguments, **options)
        # Before connecting: messages that waited at the broker may come at once.
        self._client.manual_ack_set(manual_ack)
        self._client.max_inflight_messages_set(0)  # it is counted here: in paho it costs more the more wait
        self._batches = Batches(self._client)
        self._thread = threading.get_ident()
        self._receiver = receiver
        self._early: list[MQTTMessage] | None = []
        """Messages that came before `deliver` was called; None afterwards."""
        self._in_flight: dict[int, tuple[float, Ended]] = {}
        """When each publication was sent, and who is told of its end, by packet number."""
        self._most_at_once = 0
        self._waiting: deque[tuple[Publication, Ended]] = deque()
        """Small publications that are sent as others are acknowledged."""
        self._slots = asyncio.Semaphore(_SLOTS)
        self._is_over = False
        self._closed_by: ReasonCode | None = None

    @override
    async def __aenter__(self) -> Self:
        await super().__aenter__()
        # aiomqtt forgets an end that comes with the broker's word.
        if self._closed_by is not None or self._client.socket() is None:
            raise aiomqtt.MqttError("closed as soon as the broker had accepted it")
        return self

    @property
    def was_taken_over(self) -> bool:
        """Whether the broker ended the connection because another client came with our client id."""
        return self._closed_by is not None and self._closed_by.value == _TAKEN_OVER

    @property
    def was_silent(self) -> bool:
        """Whether either end gave up the connection because it heard nothing for too long."""
        return self._closed_by is not None and self._closed_by.value == _SILENT

    @property
    def was_closed_by_broker(self) -> bool:
        """Whether the broker ended the connection for what may be a reason of ours."""
        return self._closed_by is not None and self._closed_by.value not in _NOT_OUR_DOING

    def deliver(self) -> None:
        """Hand over the messages that have arrived, and from now on each as it is read."""
        early, self._early = self._early or [], None
        if self._receiver is not None:
            for message in early:
                self._receiver.dispatch(message)

    async def ended(self) -> NoReturn:
        """Wait for the end of the connection, and raise aiomqtt.MqttError."""
        await asyncio.wait([self._disconnected])
        raise aiomqtt.MqttError(_ENDED) from self._disconnected.exception()

    def publish_at_once(self, publication: Publication, ended: Ended) -> bool:
        """Publish without waiting. Return False if this is too large, or too many wait.

        Args:
            publication: what to publish.
            ended: called when the broker has it, or with the reason why it has not: RefusedError,
                ConnectionLostError, TimeoutError, or another aiomqtt.MqttError. Never called from here.
        """
        if (
            len(publication.payload) > _SMALL_BYTES
            or self._slots.locked()
            or len(self._waiting) >= _MAX_WAITING
            or self._is_over
        ):
            return False
        self._waiting.append((publication, ended))
        self._send_waiting()
        return True

    def toss(self, publication: Publication) -> bool:
        """Publish with QoS 0, without an account. Return False, without sending, if too much waits."""
        if self._is_over or len(self._client._out_packet) >= _MAX_WAITING:  # noqa: SLF001
            return False
        return self._client.publish(*publication).rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _send_waiting(self) -> None:
        while self._waiting and len(self._in_flight) < self._most_at_once:
            publication, ended = self._waiting.popleft()
            sent = self._client.publish(*publication)
            if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._loop.call_soon(ended, aiomqtt.MqttCodeError(sent.rc, "Could not publish message"))
            elif sent.is_published():
                self._loop.call_soon(ended, None)
            else:
                self._in_flight[sent.mid] = self._loop.time(), ended

    async def publish_once(self, publication: Publication) -> None:
        """Publish, and wait until the broker has it.

        Raises:
            RefusedError: the broker refuses it.
            ConnectionLostError: the connection ended first.
            aiomqtt.MqttError: it was not sent at all.
        """
        async with self._slots:
            if self._is_over:
                raise aiomqtt.MqttError(_ENDED)
            sent = self._client.publish(*publication)
            if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise aiomqtt.MqttCodeError(sent.rc, "Could not publish message")
            if sent.is_published():
                return
            acknowledged: asyncio.Future[None] = self._loop.create_future()
            self._in_flight[sent.mid] = self._loop.time(), partial(_settle, acknowledged)
            try:
                await acknowledged
            finally:
                self._in_flight.pop(sent.mid, None)

    def forget(self, after_s: float) -> None:
        """End the publications that were sent longer ago than this, with TimeoutError."""
        while self._in_flight:
            packet, (sent_s, ended) = next(iter(self._in_flight.items()))
            if self._loop.time() - sent_s < after_s:
                return
            del self._in_flight[packet]
            ended(TimeoutError())
            self._send_waiting()

    async def sent(self) -> None:
        """Wait until nothing is in flight or to be written."""
        batches = self._batches
        while not self._is_over and (self._in_flight or self._waiting or batches.wants_write):  # noqa: ASYNC110
            await asyncio.sleep(_SENT_POLL_S)

    def abandon(self) -> None:
        """End the connection, or the attempt at one, and every publication under way."""
        self._is_over = True
        self._client.disconnect()
        self._close_socket()
        in_flight, self._in_flight = self._in_flight, {}
        for _, ended in in_flight.values():
            ended(ConnectionLostError(_ENDED))
        waiting, self._waiting = self._waiting, deque()
        for _, ended in waiting:
            ended(aiomqtt.MqttError(_ENDED))

    @override
    def _client_connect(self) -> None:
        """Connect, in a thread. An attempt that was abandoned meanwhile must not leave its socket open."""
        super()._client_connect()
        if self._is_over:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                self._loop.call_soon_threadsafe(self._close_socket)

    def _close_socket(self) -> None:
        """Close the socket if paho has not."""
        self._client._sock_close()  # noqa: SLF001

    @override
    def _on_connect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        allowed = getattr(properties, "ReceiveMaximum", _MAX_IN_FLIGHT)
        slots = max(1, min(allowed // 2, _SLOTS))  # Mosquitto's default allows no more than our slots
        self._slots = asyncio.Semaphore(slots)
        self._most_at_once = max(1, min(allowed, _MAX_IN_FLIGHT) - slots)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    @override
    def _on_message(self, client: PahoClient, userdata: Any, message: MQTTMessage) -> None:
        if self._receiver is None:
            super()._on_message(client, userdata, message)
        elif self._early is None:
            self._receiver.dispatch(message)
        else:
            self._early.append(message)

    @override
    def _on_publish(
        self, client: PahoClient, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        _, ended = self._in_flight.pop(mid, (0.0, None))
        if ended is not None:
            ended(RefusedError(str(reason_code)) if reason_code.is_failure else None)
            self._send_waiting()

    @override
    def _on_disconnect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self._closed_by = self._closed_by or reason_code
        # aiomqtt looks away before the broker has accepted the connection, and waits on.
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttError("closed before the broker accepted it"))
            self._connected.exception()  # seen: nobody may be left to await it
            return
        if self._connected.cancelled():  # aiomqtt would raise: the attempt was given up meanwhile
            return
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
        if self._disconnected.done():
            self._disconnected.exception()  # as above

    @override
    def _on_socket_open(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        is_due = False

        def read_on() -> None:
            nonlocal is_due
            is_due = False
            read()

        def read() -> None:
            """Read packets for a turn, and again in the next turn of the loop where packets are left."""
            nonlocal is_due
            if is_due:  # the socket has more, too: one turn for each turn of the loop is enough
                return
            began_s = time.thread_time()
            try:
                client.loop_read()
                while self._batches.has_incoming or is_pending(client.socket()):
                    if time.thread_time() - began_s > _TURN_S:
                        is_due = True
                        self._loop.call_soon(read_on)
                        break
                    client.loop_read()
            except Exception as error:  # noqa: BLE001 - as aiomqtt
                self._fail(error)
            if self._receiver is not None:
                self._receiver.read(is_empty=self._batches.is_drained)
            acknowledge_tcp(client.socket())

        def open_socket() -> None:
            if sock.fileno() >= 0:
                self._loop.add_reader(sock.fileno(), read)
                self._misc_task = self._loop.create_task(self._misc_loop())

        self._loop.call_soon_threadsafe(open_socket)

    @override
    def _on_socket_register_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        # aiomqtt adds the writer a moment later, when the socket may be closed and its number another's.
        def write() -> None:
            if sock.fileno() < 0:
                return
            try:
                self._batches.write()
            except Exception as error:  # noqa: BLE001 - as aiomqtt
                self._fail(error)
            if sock.fileno() >= 0:
                if self._batches.wants_write:
                    self._loop.add_writer(sock.fileno(), write)
                else:
                    self._loop.remove_writer(sock.fileno())

        if threading.get_ident() == self._thread:
            self._loop.call_soon(write)  # what else is published in this turn of the loop goes with it
        else:
            self._loop.call_soon_threadsafe(write)

    @override
    def _on_socket_unregister_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        """Leave it to `write`, which also knows of what paho thinks is written."""

    @override
    def _on_socket_close(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_writer(sock.fileno())
        super()._on_socket_close(client, userdata, sock)

    def _fail(self, error: Exception) -> None:
        if not self._disconnected.done():
            self._disconnected.set_exception(error)


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def acknowledge(client: aiomqtt.Client, packet: int) -> None:
    """Tell the broker that a QoS 1 message has been handled."""
    client._client.ack(packet, 1)  # noqa: SLF001
