"""Reads and writes of a paho client, many packets at a time.

paho asks the kernel three or four times for each packet that it reads, and once for each that it writes. Each
time another thread may take the interpreter, and under load that costs more than everything else. Most
packets go past paho altogether (`packets.py`).
"""

from typing import Any

from paho.mqtt.client import Client as PahoClient

from splitplace.bus.packets import NOT_OURS, NOT_WHOLE, Read, first

READ_BYTES = 64 * 1024
"""Bytes that are read at once. Packets that miss more than this are read straight into place."""
WRITE_BYTES = 64 * 1024
"""Bytes that are gathered at most. Larger packets are written by themselves."""

_DISCONNECT = 0xE0


class Batches:
    """Stands between a paho client and its socket."""

    def __init__(self, client: PahoClient) -> None:
        """Take over reading and writing. The client must not be connected yet, and connects once."""
        paho: Any = client
        self._read = paho._sock_recv  # noqa: SLF001
        self._write = paho._sock_send  # noqa: SLF001
        paho._sock_recv = self._take  # noqa: SLF001
        paho._sock_send = self._gather  # noqa: SLF001
        self._client = client
        self._incoming = b""
        self._taken = 0
        self._is_drained = True
        self._outgoing = bytearray()

    @property
    def has_incoming(self) -> bool:
        """Whether bytes were read that the client has not taken."""
        return self._taken < len(self._incoming)

    @property
    def is_drained(self) -> bool:
        """Whether the socket held nothing more when it was read last, and the client has taken all of it."""
        return not self.has_incoming and self._is_drained

    @property
    def wants_write(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._outgoing) or self._client.want_write()

    @property
    def outgoing_bytes(self) -> int:
        """Bytes that wait to be written."""
        return len(self._outgoing)

    def first(self) -> Read | None:
        """Look at the first packet that was not taken; None if the socket has nothing more now.

        What is not for us is read by paho, also the end of the connection.
        """
        paho: Any = self._client
        if paho._in_packet["command"]:  # noqa: SLF001 - it has begun to read a packet
            return NOT_OURS
        try:
            if not self.has_incoming and not self._fill():
                return NOT_OURS
            while True:
                found = first(self._incoming, self._taken, READ_BYTES)
                if found is not NOT_WHOLE or not self._fill():
                    return found
        except BlockingIOError:
            return None
        except OSError:
            return NOT_OURS

    def took(self, found: Read) -> None:
        """Go on behind a packet."""
        self._taken = found.end

    def put(self, packet: bytes) -> None:
        """Write a packet with the next `write`."""
        self._outgoing += packet

    def write(self) -> None:
        """Write what the client has queued. Raises OSError if the connection broke, not if it is full."""
        self._client.loop_write()
        try:
            self._flush()
        except BlockingIOError:
            return

    def _take(self, size: int) -> bytes:
        if not self.has_incoming:
            if size >= READ_BYTES:
                direct: bytes = self._read(size)
                return direct
            self._fill()
        taken = self._incoming[self._taken : self._taken + size]
        self._taken += len(taken)
        return taken

    def _fill(self) -> bool:
        """Read what the socket has, behind what was not taken. Return False at the end of the connection."""
        more: bytes = self._read(READ_BYTES)
        self._is_drained = len(more) < READ_BYTES
        self._incoming, self._taken = self._incoming[self._taken :] + more, 0
        return bool(more)

    def _gather(self, packet: bytes | bytearray) -> int:
        """Take a packet as if it were written; raises BlockingIOError as a full socket does."""
        is_last = packet[0] == _DISCONNECT  # paho closes the socket as soon as it is written
        if is_last or len(self._outgoing) + len(packet) > WRITE_BYTES:
            self._flush()
            written: int = self._write(packet)
            return written
        self._outgoing += packet
        return len(packet)

    def _flush(self) -> None:
        while self._outgoing:
            del self._outgoing[: self._write(self._outgoing)]
