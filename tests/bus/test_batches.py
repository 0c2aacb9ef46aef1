"""Many packets in one read and one write."""

from types import SimpleNamespace
from typing import Any

import pytest

from splitplace.bus.batches import READ_BYTES, WRITE_BYTES, Batches


class Kernel:
    """A socket and a paho client on it, as far as they matter here."""

    def __init__(self) -> None:
        self.readable = b""
        self.room = 1_000_000
        self.written: list[bytes] = []
        self.reads = 0
        self.queued: list[bytes] = []
        self.client: Any = SimpleNamespace(_sock_recv=self.recv, _sock_send=self.send)
        self.client.loop_write = self.loop_write
        self.client.want_write = lambda: bool(self.queued)

    def recv(self, size: int) -> bytes:
        self.reads += 1
        if not self.readable:
            raise BlockingIOError
        taken, self.readable = self.readable[:size], self.readable[size:]
        return taken

    def send(self, data: bytes) -> int:
        taken = bytes(data[: self.room])
        if not taken:
            raise BlockingIOError
        self.room -= len(taken)
        self.written.append(taken)
        return len(taken)

    def loop_write(self) -> None:
        """As paho: packet after packet, until the socket is full."""
        while self.queued:
            try:
                sent = self.client._sock_send(self.queued[0])
            except BlockingIOError:
                return
            self.queued[0] = self.queued[0][sent:]
            if not self.queued[0]:
                self.queued.pop(0)


def test_small_reads_are_served_from_one_large_one() -> None:
    kernel = Kernel()
    batches = Batches(kernel.client)
    kernel.readable = bytes(range(100))
    assert [kernel.client._sock_recv(1) for _ in range(100)] == [bytes((byte,)) for byte in range(100)]
    assert kernel.reads == 1
    assert not batches.has_incoming
    with pytest.raises(BlockingIOError):
        kernel.client._sock_recv(1)


def test_a_large_packet_arrives_whole_and_in_order() -> None:
    kernel = Kernel()
    Batches(kernel.client)
    sent = bytes(index % 251 for index in range(5 * READ_BYTES))
    kernel.readable = sent
    received = b""
    while len(received) < len(sent):
        received += kernel.client._sock_recv(min(len(sent) - len(received), 3 * READ_BYTES))
    assert received == sent


def test_the_end_of_the_connection_is_passed_on() -> None:
    kernel = Kernel()
    kernel.client = SimpleNamespace(_sock_recv=lambda _: b"", _sock_send=kernel.send)
    Batches(kernel.client)
    assert kernel.client._sock_recv(1) == b""


def test_what_is_queued_in_one_turn_is_written_at_once() -> None:
    kernel = Kernel()
    batches = Batches(kernel.client)
    kernel.queued = [b"\x30one", b"\x30two", b"\x40three"]
    batches.write()
    assert kernel.written == [b"\x30one\x30two\x40three"]
    assert not batches.wants_write


def test_what_a_full_socket_does_not_take_is_written_later_and_nothing_twice() -> None:
    kernel = Kernel()
    batches = Batches(kernel.client)
    packets = [b"\x30" + bytes((index,)) * (WRITE_BYTES // 3) for index in range(20)]
    packets.append(b"\x30" + b"x" * 3 * WRITE_BYTES)
    kernel.queued, kernel.room = list(packets), 0
    for _ in range(1000):
        batches.write()
        if not batches.wants_write:
            break
        kernel.room = WRITE_BYTES // 7
    assert b"".join(kernel.written) == b"".join(packets)


def test_a_goodbye_is_not_kept_back() -> None:
    kernel = Kernel()
    Batches(kernel.client)
    for packet in (b"\x30one", b"\xe0\x00"):
        kernel.client._sock_send(packet)
    assert b"".join(kernel.written) == b"\x30one\xe0\x00"
