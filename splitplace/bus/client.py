"""The aiomqtt client of a connection, with what aiomqtt does not offer.

Manual acknowledgements, quick TCP acknowledgements, connection attempts that end with their socket: for these
this module, and no other, uses the inside of aiomqtt and the paho client in it (docs/decisions/0004-bus.md).
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Self

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import DisconnectFlags
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions
from typing_extensions import override

from splitplace.bus.batches import Batches
from splitplace.bus.keepalive import Keepalive
from splitplace.bus.settings import Settings
from splitplace.messages import limits
from splitplace.messages.base import Message

_MAX_IN_FLIGHT = 64
"""Publications in flight at a time: in paho each costs more, the more there are."""

_ENDED = "the connection ended"

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

_RETAIN_SEND = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
_RETAIN_DO_NOT_SEND = SubscribeOptions.RETAIN_DO_NOT_SEND

_TURN_S = 0.002
"""Time after which reading lets others run."""

# Without this and `_acknowledge_tcp`, TCP holds messages back for 40 ms a hop (docs/decisions/0004-bus.md).
_SOCKET_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)


class _LostSockets(logging.Filter):
    """Makes paho's errors about lost sockets debug messages: the connection itself warns of them, seldom."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith(("failed to receive on socket", "timeout on socket")):
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(record.levelno)


logging.getLogger("mqtt").addFilter(_LostSockets())


@dataclass(frozen=True, slots=True)
class Session:
    """The broker keeps subscriptions and QoS 1 messages of a connection while it is away."""

    expiry_s: int = 0
    """Time they are kept; 0 = not at all."""
    clean_start: bool = True
    """Begin without the messages of an earlier process with the same identifier."""
    live_only: bool = False
    """Ask the broker for nothing that it had kept, and for the retain flag as it was published."""

    def subscription(self, qos: int) -> SubscribeOptions:
        """Return the options of a subscription. The embedded broker ignores `live_only`."""
        handling = _RETAIN_DO_NOT_SEND if self.live_only else _RETAIN_SEND
        return SubscribeOptions(qos=qos, retainAsPublished=self.live_only, retainHandling=handling)


NO_SESSION = Session()
TENSOR_SESSION = Session(expiry_s=10)
"""A short break of a receiver's connection is announced to nobody: its tensors must wait at the broker."""


class ConnectionLostError(aiomqtt.MqttError):
    """The connection ended before a publication was acknowledged."""


class RefusedError(aiomqtt.MqttError):
    """The broker does not take a publication. The message is its reason."""


class TakenOverError(aiomqtt.MqttError):
    """The broker ended the connection because another client came with its client id."""


class BrokerClient(aiomqtt.Client):
    """An aiomqtt client that notices the end of its socket at any time."""

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - as aiomqtt's
        manual_ack: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*arguments, **options)
        # Before connecting: messages that waited at the broker may come at once.
        self._client.manual_ack_set(manual_ack)
        self._batches = Batches(self._client)
        self._thread = threading.get_ident()
        self._acknowledgements: dict[int, asyncio.Future[None]] = {}
        self._slots = asyncio.Semaphore(_MAX_IN_FLIGHT)
        self._is_over = False
        self._closed_by: ReasonCode | None = None

    @override
    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if (
            self._closed_by is not None or self._client.socket() is None
        ):  # aiomqtt forgets an end that comes with the broker's word
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

    async def publish_once(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: Properties | None
    ) -> None:
        """Publish, and wait until the broker has it.

        Raises:
            RefusedError: the broker refuses it.
            ConnectionLostError: the connection ended first.
            aiomqtt.MqttError: it was not sent at all.
        """
        async with self._slots:
            if self._is_over:
                raise aiomqtt.MqttError(_ENDED)
            sent = self._client.publish(topic, payload, qos, retain, properties)
            if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise aiomqtt.MqttCodeError(sent.rc, "Could not publish message")
            if sent.is_published():
                return
            acknowledged: asyncio.Future[None] = self._loop.create_future()
            self._acknowledgements[sent.mid] = acknowledged
            try:
                await acknowledged
            finally:
                self._acknowledgements.pop(sent.mid, None)

    def abandon(self) -> None:
        """End the connection, or the attempt at one, and every publication under way."""
        self._is_over = True
        self._client.disconnect()
        for acknowledged in self._acknowledgements.values():
            if not acknowledged.done():
                acknowledged.set_exception(ConnectionLostError(_ENDED))

    @override
    def _on_publish(
        self, client: PahoClient, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        acknowledged = self._acknowledgements.get(mid)
        if acknowledged is None or acknowledged.done():
            return
        if reason_code.is_failure:
            acknowledged.set_exception(RefusedError(str(reason_code)))
        else:
            acknowledged.set_result(None)

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
        def read() -> None:
            """Read packets for a turn; `read` comes again where packets are left."""
            began_s = self._loop.time()
            try:
                client.loop_read()
                while self._batches.has_incoming or _is_pending(client.socket()):
                    if self._loop.time() - began_s > _TURN_S:
                        self._loop.call_soon(read)
                        break
                    client.loop_read()
            except Exception as error:  # noqa: BLE001 - as aiomqtt
                self._fail(error)
            _acknowledge_tcp(client.socket())

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


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Identity and options of a connection at the broker."""

    settings: Settings
    identifier: str
    """The client id without its secret end; for logs."""
    secret: str
    will: tuple[str, Message] | None
    session: Session
    receive_maximum: int
    keepalive: Keepalive
    forgotten_after_s: float
    manual_ack: bool = True
    """Whether messages are acknowledged by `acknowledge`, not as they arrive."""

    @property
    def client_id(self) -> str:
        """The MQTT client id. Whoever knows it can end the connection: never logged."""
        if bound := self.settings.bound_client_id:
            return bound
        return "-".join(filter(None, (self.settings.client_id(self.identifier), self.secret)))

    async def forget(self, patience_s: float) -> None:
        """End the session of an earlier process if ours begins without it. Raises aiomqtt.MqttError.

        Uses a connection of its own: rumqttd keeps nothing for a connection that began with a clean start.
        """
        if self.session.expiry_s and self.session.clean_start:
            async with replace(self, session=NO_SESSION).connected(patience_s):
                pass

    @contextlib.asynccontextmanager
    async def connected(self, patience_s: float) -> AsyncIterator[BrokerClient]:
        """Connect, and disconnect at the end. Reads certificate files.

        Args:
            patience_s: for the broker's word.

        Raises:
            TakenOverError: the broker said that another client came with this client id.
            aiomqtt.MqttError: the broker was silent, refused or closed the connection.
        """
        client = self._client(patience_s)
        began_s = asyncio.get_running_loop().time()
        try:
            async with client:
                client.timeout = self.forgotten_after_s
                yield client
        except aiomqtt.MqttError as error:
            if client.was_silent:
                self.keepalive.broke(held_s=asyncio.get_running_loop().time() - began_s)
            if client.was_taken_over:
                raise TakenOverError(str(error)) from error
            raise
        finally:
            client.abandon()

    def _client(self, patience_s: float) -> BrokerClient:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = self.receive_maximum
        properties.MaximumPacketSize = limits.MAX_PACKET_BYTES
        properties.SessionExpiryInterval = self.session.expiry_s
        will = None
        if self.will is not None:
            topic, message = self.will
            payload = message.model_dump_json().encode()
            will = aiomqtt.Will(f"{self.settings.prefix}/{topic}", payload, qos=1, retain=True)
        password = self.settings.password
        return BrokerClient(
            self.settings.host,
            self.settings.port,
            username=self.settings.username,
            password=password.get_secret_value() if password else None,
            identifier=self.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=will,
            clean_start=not self.session.expiry_s,
            keepalive=self.keepalive.next_s,
            properties=properties,
            tls_context=self.settings.tls_context(),
            timeout=patience_s,
            manual_ack=self.manual_ack,
            socket_options=_SOCKET_OPTIONS,
        )


def acknowledge(client: aiomqtt.Client, packet: int) -> None:
    """Tell the broker that a QoS 1 message has been handled."""
    client._client.ack(packet, 1)  # noqa: SLF001


def _is_pending(connection: Any) -> bool:  # noqa: ANN401 - a socket of any kind that paho knows
    """Whether a TLS socket has decrypted bytes that no poll tells of."""
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0


def _acknowledge_tcp(connection: Any) -> None:  # noqa: ANN401 - as above
    """Send the TCP acknowledgement of what was just read now, not in 40 ms.

    A broker that leaves Nagle's algorithm on (rumqttd always, Mosquitto by default) holds its next message
    back until then. Linux forgets the option after each use.
    """
    if isinstance(connection, socket.socket) and sys.platform == "linux":
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
