"""The aiomqtt client of a connection, with manual acknowledgements and quick TCP acknowledgements.

aiomqtt offers neither, so this module, and no other, uses the paho client inside it (`_client`;
docs/decisions/0004-bus.md).
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
"""Publications in flight at a time: in aiomqtt each costs more, the more there are."""

# Without this and `acknowledge_tcp`, TCP holds messages back for 40 ms a hop (docs/decisions/0004-bus.md).
_SOCKET_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)


@dataclass(frozen=True, slots=True)
class Session:
    """The broker keeps subscriptions and QoS 1 messages of a connection while it is away."""

    expiry_s: int = 0
    """Time they are kept; 0 = not at all."""
    clean_start: bool = True
    """Begin without the messages of an earlier process with the same identifier."""


NO_SESSION = Session()
TENSOR_SESSION = Session(expiry_s=10)
"""A short break of a receiver's connection is announced to nobody: its tensors must wait at the broker."""


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Identity and options of a connection at the broker."""

    settings: Settings
    identifier: str
    will: tuple[str, Message] | None
    session: Session
    receive_maximum: int
    keepalive_s: int
    forgotten_after_s: float

    async def forget(self) -> None:
        """End the session of an earlier process if ours begins without it. Raises aiomqtt.MqttError.

        Uses a connection of its own: rumqttd keeps nothing for a connection that began with a clean start.
        """
        if self.session.expiry_s and self.session.clean_start:
            async with replace(self, session=NO_SESSION).client():
                pass

    def client(self) -> aiomqtt.Client:
        """Return a client that is not connected yet. Reads certificate files."""
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
        # Before connecting: messages that waited at the broker may come at once.
        client._client.manual_ack_set(True)  # noqa: FBT003, SLF001
        return client


def acknowledge(client: aiomqtt.Client, packet: int) -> None:
    """Tell the broker that a QoS 1 message has been handled."""
    client._client.ack(packet, 1)  # noqa: SLF001


def acknowledge_tcp(client: aiomqtt.Client) -> None:
    """Send the TCP acknowledgement of what was just read now, not in 40 ms.

    A broker that leaves Nagle's algorithm on (rumqttd always, Mosquitto by default) holds its next message
    back until then. Linux forgets the option after each use.
    """
    connection = client._client.socket()  # noqa: SLF001
    if isinstance(connection, socket.socket) and sys.platform == "linux":
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
