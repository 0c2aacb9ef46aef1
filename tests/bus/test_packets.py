"""Packets that go past paho: written as paho reads them, read as paho writes them."""

from dataclasses import astuple
from types import SimpleNamespace
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitplace.bus.batches import READ_BYTES, Batches
from splitplace.bus.packets import (
    NOT_OURS,
    NOT_WHOLE,
    Acknowledged,
    Published,
    acknowledgement,
    first,
    publish,
)

MESSAGES = [
    Published("p/job/c.1/accepted", b"{}", qos=1, packet=513),
    Published("p/metrics", b"", qos=0),
    Published("p/bild/grün", b"x" * 127, qos=1, packet=65535, retain=True),
    Published("p/t", b"x" * 20_000, qos=0, retain=True),
]


def written(message: Published, properties: Properties | None = None) -> bytes:
    return publish(
        message.topic.encode(),
        message.payload,
        qos=message.qos,
        retain=message.retain,
        packet=message.packet,
        properties=properties,
    )


def of_paho(message: Published, properties: Properties | None = None) -> bytes:
    """Return the packet as paho would write it."""
    client: Any = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client._sock = object()
    packets: list[bytes] = []
    client._packet_queue = lambda _command, packet, *_: packets.append(bytes(packet))
    client._send_publish(
        message.packet,
        message.topic.encode(),
        message.payload,
        message.qos,
        message.retain,
        properties=properties,
    )
    client._sock = None
    return packets[0]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.topic)
def test_it_is_written_as_by_paho_and_read_again(message: Published) -> None:
    packet = written(message)
    assert packet == of_paho(message)
    found = first(b"before" + packet + b"\x40", 6, READ_BYTES)
    assert isinstance(found.packet, Published)
    assert (astuple(found.packet), found.end) == (astuple(message), 6 + len(packet))


def test_properties_are_written_as_by_paho_and_left_to_it_to_read() -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.CorrelationData = b"7"
    packet = written(MESSAGES[0], properties)
    assert packet == of_paho(MESSAGES[0], properties)
    assert first(packet, 0, READ_BYTES).packet is None


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.topic)
def test_a_packet_that_is_not_whole_is_waited_for(message: Published) -> None:
    packet = written(message)
    for end in range(1, len(packet), 1 + len(packet) // 50):
        assert first(packet[:end], 0, READ_BYTES) is NOT_WHOLE


def test_the_broker_s_word_is_read_with_and_without_a_reason() -> None:
    for packet, word in (
        (b"\x40\x02\x02\x01", Acknowledged(513)),
        (b"\x40\x03\x02\x01\x87", Acknowledged(513, 0x87)),
        (b"\x40\x04\x02\x01\x10\x00", Acknowledged(513, 0x10)),
        (acknowledgement(513), Acknowledged(513)),
    ):
        assert first(packet, 0, READ_BYTES) == (word, len(packet))


@pytest.mark.parametrize(
    "packet",
    [
        b"\xd0\x00",  # a ping's answer
        b"\x40\x01\x02",  # an acknowledgement without a whole number
        b"\x34\x06\x00\x01t\x00\x01\x00",  # QoS 2
        b"\x32\x05\x00\x09t\x00\x01",  # a topic longer than the packet
        b"\x30\x02\x00\x00",  # no properties, not even their length
        b"\x30\x00",
        b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
    ],
)
def test_everything_else_is_left_to_paho(packet: bytes) -> None:
    assert first(packet, 0, READ_BYTES).packet is None
    assert first(packet, 0, READ_BYTES) is not NOT_WHOLE


def test_a_large_packet_is_left_to_paho_before_it_has_come() -> None:
    packet = written(Published("p/t", b"x" * 2 * READ_BYTES))
    assert first(packet[:100], 0, READ_BYTES) is NOT_OURS


def test_a_topic_that_is_not_utf_8_is_empty() -> None:
    found = first(b"\x30\x05\x00\x02\xff\xfe\x00", 0, READ_BYTES)
    assert found.packet == Published("", b"", qos=0)


class Socket:
    """Gives what was put in, part by part."""

    def __init__(self, *parts: bytes | OSError) -> None:
        self.parts = list(parts)
        self.client: Any = SimpleNamespace(_sock_recv=self.recv, _sock_send=len, _in_packet={"command": 0})

    def recv(self, _size: int) -> bytes:
        part = self.parts.pop(0) if self.parts else BlockingIOError()
        if isinstance(part, OSError):
            raise part
        return part


def test_packets_that_come_in_parts_are_read_one_by_one() -> None:
    sent = [written(message) for message in MESSAGES]
    stream = b"".join(sent)
    socket = Socket(*(stream[at : at + 7] for at in range(0, len(stream), 7)))
    batches = Batches(socket.client)
    seen = []
    while (found := batches.first()) is not None:
        assert isinstance(found.packet, Published)
        seen.append(found.packet)
        batches.took(found)
    assert seen == MESSAGES
    assert batches.is_drained


def test_half_a_packet_waits_until_the_socket_has_more() -> None:
    packet = written(MESSAGES[0])
    socket = Socket(packet[:9])
    batches = Batches(socket.client)
    assert batches.first() is None
    socket.parts = [packet[9:]]
    found = batches.first()
    assert found is not None
    assert found.packet == MESSAGES[0]


@pytest.mark.parametrize("end", [b"", ConnectionResetError()])
def test_the_end_of_the_connection_is_for_paho(end: bytes | OSError) -> None:
    assert Batches(Socket(end).client).first() is NOT_OURS


def test_a_packet_that_paho_has_begun_is_left_to_it() -> None:
    socket = Socket(written(MESSAGES[0]))
    socket.client._in_packet["command"] = 0x30
    assert Batches(socket.client).first() is NOT_OURS
