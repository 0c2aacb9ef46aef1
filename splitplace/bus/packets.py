"""The two packets that nearly all traffic consists of: PUBLISH and PUBACK of MQTT 5. Pure.

paho builds some thirty objects for each of them. It reads and writes all other packets, and reads messages
that have properties or are large (docs/decisions/0004-bus.md).
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple, Self

from paho.mqtt.client import MQTTMessage
from paho.mqtt.properties import Properties

_PUBLISH, _PUBACK = 0x30, 0x40
_NOTHING = b"\0"
"""No properties."""
_WORD = struct.Struct("!H")
_ACKNOWLEDGEMENT = struct.Struct("!BBH")
_KIND = 0xF0
"""The bits of the first byte that say which packet it is."""
_LONGEST_LENGTH, _BITS, _LOW, _MORE = 4, 7, 0x7F, 0x80
"""The length of a packet: its bytes at most, the bits of each, their mask, and the bit for a further byte."""


@dataclass(slots=True)
class Published:
    """A message from the broker."""

    topic: str
    """With prefix; empty if it is not UTF-8."""
    payload: bytes
    qos: int = 1
    packet: int = 0
    """Number by which it is acknowledged; 0 for QoS 0."""
    retain: bool = False
    dup: bool = False
    properties: Properties | None = None

    @classmethod
    def of(cls, message: MQTTMessage) -> Self:
        """Return what paho has read."""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        return cls(
            topic,
            bytes(message.payload),
            message.qos,
            message.mid,
            message.retain,
            message.dup,
            message.properties,
        )


class Acknowledged(NamedTuple):
    """The broker's word on a publication."""

    packet: int
    reason: int = 0
    """Reason code: from 0x80 on it was refused."""


class Read(NamedTuple):
    """What stands at the beginning of the bytes that were read."""

    packet: Published | Acknowledged | None
    """None: something that paho has to read, or that is not whole."""
    end: int = 0
    """Where the next packet begins."""


NOT_OURS = Read(None)
NOT_WHOLE = Read(None)


def publish(
    topic: bytes, payload: bytes, *, qos: int, retain: bool, packet: int, properties: Properties | None = None
) -> bytes:
    """Return a PUBLISH packet. `packet` is its number, which only QoS 1 has."""
    packed = _NOTHING if properties is None else properties.pack()  # type: ignore[no-untyped-call]
    number = _WORD.pack(packet) if qos else b""
    length = _WORD.size + len(topic) + len(number) + len(packed) + len(payload)
    head = bytearray((_PUBLISH | qos << 1 | retain,))
    while length > _LOW:
        head.append(length & _LOW | _MORE)
        length >>= _BITS
    head.append(length)
    return b"".join((head, _WORD.pack(len(topic)), topic, number, packed, payload))


def acknowledgement(packet: int) -> bytes:
    """Return the PUBACK packet for a message that was handled."""
    return _ACKNOWLEDGEMENT.pack(_PUBACK, 2, packet)


def first(data: bytes, start: int, most_bytes: int) -> Read:
    """Return the packet that begins at `start`, if it is a whole PUBLISH or PUBACK.

    Args:
        data: bytes from the broker, at least one from `start` on.
        start: where a packet begins.
        most_bytes: larger packets are not for us.
    """
    kind = data[start] & _KIND
    if kind not in {_PUBLISH, _PUBACK}:
        return NOT_OURS
    length, at = 0, start + 1
    for shift in range(0, _BITS * _LONGEST_LENGTH, _BITS):
        if at >= len(data):
            return NOT_WHOLE
        byte = data[at]
        at += 1
        length |= (byte & _LOW) << shift
        if byte <= _LOW:
            end = at + length
            if end <= len(data):
                found = _acknowledged if kind == _PUBACK else _published
                return Read(found(data, start, at, end), end)
            return NOT_WHOLE if length <= most_bytes else NOT_OURS
    return NOT_OURS  # paho ends the connection


def _acknowledged(data: bytes, _: int, at: int, end: int) -> Acknowledged | None:
    """Return a PUBACK; None if it is broken. What stands behind its reason code is text for people."""
    behind = at + _WORD.size
    if behind > end:
        return None
    return Acknowledged(_WORD.unpack_from(data, at)[0], data[behind] if behind < end else 0)


def _published(data: bytes, start: int, at: int, end: int) -> Published | None:
    """Return a PUBLISH; None if it has properties, or is broken."""
    qos = data[start] >> 1 & 3
    least = 2 * _WORD.size if qos else _WORD.size
    if qos > 1 or end - at <= least:
        return None
    (length,) = _WORD.unpack_from(data, at)
    at += _WORD.size
    body = at + length + least - _WORD.size
    if body >= end or data[body]:
        return None
    try:
        topic = data[at : at + length].decode()
    except UnicodeDecodeError:
        topic = ""
    packet = _WORD.unpack_from(data, at + length)[0] if qos else 0
    flags = data[start]
    return Published(topic, data[body + 1 : end], qos, packet, bool(flags & 1), bool(flags & 8))
