"""Test what the system needs from a broker, with messages below `<prefix>/doctor/`.

Blocking; takes a few seconds at most.
"""

import queue
import secrets
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from splitplace.bus.settings import Settings
from splitplace.errors import SplitPlaceError

WAIT_S = 5.0
_QUIET_S = 2.0
_FEW_IN_FLIGHT = 10


class ProbeError(SplitPlaceError):
    """The broker failed an experiment; the text says how."""


class MayNotError(ProbeError):
    """The broker's access rules do not let this user try it out."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the broker stated when it accepted the connection."""

    max_packet_bytes: int | None
    """None = it states no limit."""
    retain_available: bool
    max_qos: int


class BrokerProbe:
    """One MQTT 5 connection for experiments. A context manager that connects and disconnects."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = f"{settings.prefix}/doctor/{secrets.token_hex(6)}"
        self._connected: queue.Queue[Greeting | str] = queue.Queue()
        self._received: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self._subscribed: queue.Queue[bool] = queue.Queue()
        """Whether each subscription was granted."""
        self._reasons: queue.Queue[ReasonCode] = queue.Queue()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.bound_client_id or f"splitplace-doctor-{secrets.token_hex(6)}",
            protocol=paho.MQTTv5,
            manual_ack=True,
        )
        password = settings.password.get_secret_value() if settings.password else None
        self._client.username_pw_set(settings.username, password)
        tls = settings.tls_context()
        if tls is not None:
            self._client.tls_set_context(tls)
        self._client.on_connect = self._on_connect
        self._client.on_publish = lambda _client, _data, _id, reason, _more: self._reasons.put(reason)
        self._client.on_message = lambda _client, _data, message: self._received.put(message)
        self._client.on_subscribe = lambda _client, _data, _id, codes, _more: self._subscribed.put(
            item=not any(code.is_failure for code in codes)
        )
        self.greeting = Greeting(None, retain_available=True, max_qos=1)

    def __enter__(self) -> Self:
        """Connect. Raises ProbeError."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = _FEW_IN_FLIGHT
        try:
            self._client.connect(self._settings.host, self._settings.port, properties=properties)
            self._client.loop_start()
            said = self._connected.get(timeout=WAIT_S)
        except (OSError, ValueError) as error:
            raise ProbeError(str(error)) from error
        except queue.Empty:
            self._client.loop_stop()
            raise ProbeError(
                "no answer to CONNECT. Is it an MQTT broker, and does it speak MQTT 5?"
            ) from None
        if isinstance(said, str):
            self._client.loop_stop()
            raise ProbeError(said)
        self.greeting = said
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def certificate_expires(self) -> str | None:
        """When the broker's certificate expires, as `ssl` says it; None without TLS."""
        connection = self._client.socket()
        found = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
        return str(found["notAfter"]) if found else None

    def rights(self) -> None:
        """Check that this user may try the broker out. Raises MayNotError, ProbeError."""
        topic = f"{self._topic}/rights"
        self._subscribe(topic)
        info = self._client.publish(topic, b"x", qos=1)
        try:
            reason = self._reasons.get(timeout=WAIT_S)
        except queue.Empty:
            raise ProbeError("the broker did not acknowledge one byte") from None
        if info.rc or reason.is_failure:
            raise MayNotError(f"this user may not write {topic}")
        self._next()

    def round_trip(self, size: int) -> None:
        """Send `size` bytes and receive them again. Raises ProbeError."""
        self._subscribe(f"{self._topic}/size")
        self._publish(f"{self._topic}/size", bytes(size))
        if len(self._next()) != size:
            raise ProbeError("the message came back with another size")

    def retained(self) -> None:
        """Check that a retained message reaches a later subscriber. Raises ProbeError."""
        topic = f"{self._topic}/retained"
        self._publish(topic, b"kept", retain=True)
        try:
            self._subscribe(topic)
            if self._next() != b"kept":
                raise ProbeError("another message came back")
        finally:
            self._client.publish(topic, b"", qos=1, retain=True)

    def queue_holds(self, count: int) -> int:
        """Publish `count` messages to a subscriber that acknowledges none. Return how many reach it later.

        Fewer than `count` means that the broker silently drops messages of slow subscribers.
        """
        topic = f"{self._topic}/queue"
        self._subscribe(topic)
        # From a connection of its own: rumqttd acknowledges nothing to a client that owes it too much itself.
        with BrokerProbe(self._settings) as other:
            for _ in range(count):
                other._client.publish(topic, b"x", qos=1)
            other._publish(topic, b"last")
        received = 0
        while received < count:
            try:
                if self._next(_QUIET_S) == b"last":
                    break
            except ProbeError:
                break
            received += 1
        return received

    def _subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, qos=1)
        try:
            is_granted = self._subscribed.get(timeout=WAIT_S)
        except queue.Empty:
            raise ProbeError("no answer to SUBSCRIBE") from None
        if not is_granted:
            raise MayNotError(f"this user may not read {topic}")

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        try:
            info.wait_for_publish(WAIT_S)
        except (RuntimeError, ValueError) as error:
            raise ProbeError(str(error)) from error
        if not info.is_published():
            raise ProbeError(f"the broker did not acknowledge {len(payload)} bytes")

    def _next(self, wait_s: float | None = None) -> bytes:
        try:
            message = self._received.get(timeout=WAIT_S if wait_s is None else wait_s)
        except queue.Empty:
            raise ProbeError(
                "the message was acknowledged but did not come back (may this user read below the prefix?)"
            ) from None
        self._client.ack(message.mid, message.qos)
        return bytes(message.payload)

    def _on_connect(
        self,
        _client: paho.Client,
        _data: object,
        _flags: object,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._connected.put(f"the broker refused the connection: {reason}")
            return
        self._connected.put(
            Greeting(
                max_packet_bytes=getattr(properties, "MaximumPacketSize", None),
                retain_available=bool(getattr(properties, "RetainAvailable", 1)),
                max_qos=getattr(properties, "MaximumQoS", 2),
            )
        )
