"""Reads and writes of a paho client, many packets at a time.

paho asks the kernel three or four times for each packet that it reads, and once for each that it writes. Each
time another thread may take the interpreter, and under load that costs more than everything else.
"""

from typing import Any

from paho.mqtt.client import Client as PahoClient

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
        self._outgoing = bytearray()

    @property
    def has_incoming(self) -> bool:
        """Whether bytes were read that the client has not taken."""
        return self._taken < len(self._incoming)

    @property
    def is_drained(self) -> bool:
        """Whether the socket held nothing more when it was read last, and the client has taken all of it."""
        return not self.has_incoming and len(self._incoming) < READ_BYTES

    @property
    def wants_write(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._outgoing) or self._client.want_write()

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
            self._incoming, self._taken = self._read(READ_BYTES), 0
        taken = self._incoming[self._taken : self._taken + size]
        self._taken += len(taken)
        return taken

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
