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
from typing import Any, NoReturn, Protocol, Self

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from typing_extensions import override

from splitplace.bus import packets
from splitplace.bus.batches import Batches
from splitplace.bus.flight import ENDED, MAX_IN_FLIGHT, Flight
from splitplace.bus.packets import Acknowledged, Published
from splitplace.bus.publication import Publication
from splitplace.bus.sockets import acknowledge_tcp, is_pending

_MOST_TOSSED_BYTES = 2 * 1024 * 1024
"""While more than this waits to be written, publications with QoS 0 are dropped."""

_SENT_POLL_S = 0.01

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

    def dispatch(self, message: Published) -> None:
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
        self._reads_messages = manual_ack and receiver is not None
        """Whether messages go past paho, which acknowledges by itself otherwise."""
        self._is_write_due = self._has_writer = False
        self._thread = threading.get_ident()
        self._receiver = receiver
        self._early: list[Published] | None = []
        """Messages that came before `deliver` was called; None afterwards."""
        self.flight = Flight(self._put)
        """The publications under way."""
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
        raise aiomqtt.MqttError(ENDED) from self._disconnected.exception()

    def acknowledge(self, packet: int) -> None:
        """Tell the broker that a QoS 1 message has been handled."""
        self._batches.put(packets.acknowledgement(packet))
        self._write_soon()

    def toss(self, publication: Publication) -> bool:
        """Publish with QoS 0, without an account. Return False, without sending, if too much waits."""
        too_much = self._batches.outgoing_bytes > _MOST_TOSSED_BYTES
        if too_much or self._is_over or self._client.socket() is None:
            return False
        self._put(publication)
        return True

    def _put(self, publication: Publication) -> int:
        """Write a publication soon; see `Flight`."""
        if self._client.socket() is None:
            raise aiomqtt.MqttError(ENDED)
        name, payload, qos, retain, properties = publication
        topic = name.encode()
        self._client._raise_for_invalid_topic(topic)  # noqa: SLF001
        packet = self._client._mid_generate() if qos else 0  # noqa: SLF001
        self._batches.put(
            packets.publish(topic, payload, qos=qos, retain=retain, packet=packet, properties=properties)
        )
        self._write_soon()
        return packet

    async def publish_once(self, publication: Publication) -> None:
        """Publish, and wait until the broker has it; raises as `Flight.publish_once`."""
        await self.flight.publish_once(publication)

    async def sent(self) -> None:
        """Wait until nothing is in flight or to be written."""
        while not self._is_over and (self.flight or self._batches.wants_write):  # noqa: ASYNC110
            await asyncio.sleep(_SENT_POLL_S)

    def abandon(self) -> None:
        """End the connection, or the attempt at one, and every publication under way."""
        self._is_over = True
        self._client.disconnect()
        self._close_socket()
        self.flight.end()

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
        self.flight.begin(getattr(properties, "ReceiveMaximum", MAX_IN_FLIGHT))
        super()._on_connect(client, userdata, flags, reason_code, properties)

    @override
    def _on_message(self, client: PahoClient, userdata: Any, message: MQTTMessage) -> None:
        if self._receiver is None:
            super()._on_message(client, userdata, message)
        else:
            self._take(Published.of(message))

    def _take(self, message: Published) -> None:
        if self._early is not None:
            self._early.append(message)
        elif self._receiver is not None:
            self._receiver.dispatch(message)

    def _read_packet(self) -> bool:
        """Read a packet. Return whether there may be more of what has come."""
        found = self._batches.first()
        if found is None:
            return False
        packet = found.packet
        if isinstance(packet, Published) and self._reads_messages:
            self._batches.took(found)
            self._take(packet)
        elif isinstance(packet, Acknowledged) and packet.packet in self.flight:
            self._batches.took(found)
            self.flight.acknowledged(packet)
        else:
            self._client.loop_read()
        return self._batches.has_incoming or is_pending(self._client.socket())

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
                while self._read_packet():
                    if time.thread_time() - began_s > _TURN_S:
                        is_due = True
                        self._loop.call_soon(read_on)
                        break
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
        if threading.get_ident() == self._thread:
            self._write_soon()
        else:
            self._loop.call_soon_threadsafe(self._write_soon)

    def _write_soon(self) -> None:
        """Write in the next turn of the loop: what else is published in this one goes with it."""
        if not self._is_write_due:
            self._is_write_due = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._is_write_due = False
        sock = self._client.socket()
        if sock is None or sock.fileno() < 0:
            return
        try:
            self._batches.write()
        except Exception as error:  # noqa: BLE001 - as aiomqtt
            self._fail(error)
        if sock.fileno() >= 0:
            if self._batches.wants_write:
                self._loop.add_writer(sock.fileno(), self._write)
                self._has_writer = True
            elif self._has_writer:
                self._loop.remove_writer(sock.fileno())
                self._has_writer = False

    @override
    def _on_socket_unregister_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        """Leave it to `write`, which also knows of what paho thinks is written."""

    @override
    def _on_socket_close(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_writer(sock.fileno())
        self._has_writer = False
        super()._on_socket_close(client, userdata, sock)

    def _fail(self, error: Exception) -> None:
        if not self._disconnected.done():
            self._disconnected.set_exception(error)
