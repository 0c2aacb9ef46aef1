"""The aiomqtt client below a connection, and what it does not offer by itself.

aiomqtt acknowledges on receipt and hides its socket, so the paho client inside it (`_client`) is reached for;
nowhere else (docs/decisions/0004-bus.md).
"""

import contextlib
import socket
import sys
from dataclasses import dataclass, replace

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitplace.bus.settings import Settings
from splitplace.messages import limits
from splitplace.messages.base import Message

_MAX_CALLS = 64
"""Publications on the way to the broker at a time: aiomqtt's cost of each grows with their number."""

# Without this and `acknowledge_tcp`, TCP holds messages back for 40 ms a hop (docs/decisions/0004-bus.md).
_SOCKET_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)


@dataclass(frozen=True, slots=True)
class Session:
    """What the broker keeps for a connection while it is away: its subscriptions, and QoS 1 messages."""

    expiry_s: int = 0
    """For so long; 0 for not at all."""
    clean_start: bool = True
    """Begin without what waits for an earlier process of the same identifier."""


NO_SESSION = Session()
TENSOR_SESSION = Session(expiry_s=10)
"""Nobody is told when a receiver's connection breaks for a moment: the tensors of that moment must wait."""


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """How a connection introduces itself to the broker."""

    settings: Settings
    identifier: str
    will: tuple[str, Message] | None
    session: Session
    receive_maximum: int
    keepalive_s: int
    forgotten_after_s: float

    async def forget(self) -> None:
        """End the session of an earlier process, where ours is to begin without it. Raises aiomqtt.MqttError.

        With a connection of its own, because rumqttd keeps nothing for one that began with a clean start.
        """
        if self.session.expiry_s and self.session.clean_start:
            async with replace(self, session=NO_SESSION).client():
                pass

    def client(self) -> aiomqtt.Client:
        """A client that is not connected yet. Reads certificate files."""
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
        client = aiomqtt.Client(
            self.settings.host,
            self.settings.port,
            username=self.settings.username,
            password=password.get_secret_value() if password else None,
            identifier=self.settings.client_id(self.identifier),
            protocol=aiomqtt.ProtocolVersion.V5,
            will=will,
            clean_start=not self.session.expiry_s,
            keepalive=self.keepalive_s,
            properties=properties,
            tls_context=self.settings.tls_context(),
            timeout=self.forgotten_after_s,
            socket_options=_SOCKET_OPTIONS,
            max_concurrent_outgoing_calls=_MAX_CALLS,
        )
        # Before connecting: what waited at the broker may come at once. From now on `acknowledge` does it.
        client._client.manual_ack_set(True)  # noqa: FBT003, SLF001
        return client


def acknowledge(client: aiomqtt.Client, packet: int) -> None:
    """Tell the broker that a QoS 1 message has been handled."""
    client._client.ack(packet, 1)  # noqa: SLF001


def acknowledge_tcp(client: aiomqtt.Client) -> None:
    """Sends the TCP acknowledgement of what was just read now, not in 40 ms.

    A broker that leaves Nagle's algorithm on (rumqttd always, Mosquitto by default) holds its next message
    back until then. Linux forgets the option after each use.
    """
    connection = client._client.socket()  # noqa: SLF001
    if isinstance(connection, socket.socket) and sys.platform == "linux":
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
