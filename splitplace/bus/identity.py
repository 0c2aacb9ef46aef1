"""Who a connection is at the broker, and what the broker keeps for it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from splitplace.bus.client import BrokerClient, Receiver, TakenOverError
from splitplace.bus.keepalive import Keepalive
from splitplace.bus.settings import Settings
from splitplace.messages import limits

_RETAIN_SEND = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
_RETAIN_DO_NOT_SEND = SubscribeOptions.RETAIN_DO_NOT_SEND

# Without this and `client._acknowledge_tcp`, TCP holds messages back for 40 ms a hop
# (docs/decisions/0004-bus.md).
_SOCKET_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)


@dataclass(frozen=True, slots=True)
class Session:
    """The broker keeps subscriptions and QoS 1 messages of a connection while it is away."""

    expiry_s: int = 0
    """Time they are kept; 0 = not at all."""
    clean_start: bool = True
    """Begin without the messages of an earlier process with the same identifier."""
    live_only: bool = False
    """Ask the broker for nothing that it had kept, and for the retain flag as it was published."""

    def subscription(self, qos: int, *, others_only: bool = False) -> SubscribeOptions:
        """Return the options of a subscription. The embedded broker ignores all but `qos`.

        Args:
            qos: quality of service.
            others_only: leave out what this connection publishes itself.
        """
        handling = _RETAIN_DO_NOT_SEND if self.live_only else _RETAIN_SEND
        return SubscribeOptions(
            qos=qos, noLocal=others_only, retainAsPublished=self.live_only, retainHandling=handling
        )


NO_SESSION = Session()
TENSOR_SESSION = Session(expiry_s=10)
"""A short break of a receiver's connection is announced to nobody: its tensors must wait at the broker."""


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Identity and options of a connection at the broker."""

    settings: Settings
    identifier: str
    """The client id without its secret end; for logs."""
    secret: str
    will: tuple[str, bytes] | None
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
    async def connected(
        self, patience_s: float, receiver: Receiver | None = None
    ) -> AsyncIterator[BrokerClient]:
        """Connect, and disconnect at the end. Reads certificate files.

        Args:
            patience_s: for the broker's word.
            receiver: see `BrokerClient`.

        Raises:
            TakenOverError: the broker said that another client came with this client id.
            aiomqtt.MqttError: the broker was silent, refused or closed the connection.
        """
        client = self._client(patience_s, receiver)
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

    def _client(self, patience_s: float, receiver: Receiver | None) -> BrokerClient:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = self.receive_maximum
        properties.MaximumPacketSize = limits.MAX_PACKET_BYTES
        properties.SessionExpiryInterval = self.session.expiry_s
        will = None
        if self.will is not None:
            topic, payload = self.will
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
            receiver=receiver,
            socket_options=_SOCKET_OPTIONS,
        )
