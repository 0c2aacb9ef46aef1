"""A TCP proxy between a part and the broker that can be slow, deaf, cut off or torn.

A byte that was accepted is never dropped: TCP would repeat it. A black hole therefore holds bytes back,
and a link that is healed delivers them, as a cable does that was plugged in again.
"""

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
_READ_BYTES = 1 << 16
_MOST_QUEUED = 16
_POLL_S = 0.02


@dataclass
class Weather:
    """How one direction of a link behaves."""

    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    """0 = unlimited."""
    slice_bytes: int = 0
    """Largest write; 0 = unlimited."""
    holds: bool = False
    """Whether nothing gets through."""


class Link:
    """One listening port that leads to the broker."""

    def __init__(self, broker_port: int, broker_host: str = LOOPBACK, *, listen: str = LOOPBACK) -> None:
        self.up = Weather()
        self.down = Weather()
        self.closes = False
        """Whether new connections are accepted and closed at once, as by a proxy without a server."""
        self.carried_bytes = {"up": 0, "down": 0}
        """Bytes written in each direction."""
        self.port = 0
        self._listen = listen
        self._broker_port = broker_port
        self._broker_host = broker_host
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, self._listen, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Tear all connections: both ends see a reset."""
        for writer in self._writers:
            stream: socket.socket | None = writer.get_extra_info("socket")
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def inflict(self, action: str, strength: float) -> None:
        """Make the weather bad. Raises ValueError for an unknown action."""
        match action:
            case "latency":
                self.up.latency_s = self.down.latency_s = strength
            case "bandwidth":
                self.up.bytes_per_s = self.down.bytes_per_s = strength
            case "slicing":
                self.up.slice_bytes = self.down.slice_bytes = int(strength)
            case "blackhole":
                self.up.holds = self.down.holds = True
            case "blackhole-up":
                self.up.holds = True
            case "blackhole-down":
                self.down.holds = True
            case "closing":
                self.closes = True
                self.reset()
            case "reset":
                self.reset()
            case _:
                raise ValueError(f"a link cannot do {action!r}")

    def heal(self) -> None:
        """Let everything pass again, at once."""
        self.up, self.down, self.closes = Weather(), Weather(), False

    def _weather(self, *, up: bool) -> Weather:
        return self.up if up else self.down

    async def _passes(self, *, up: bool) -> None:
        """Wait while a direction is a black hole."""
        while self._weather(up=up).holds:  # noqa: ASYNC110 - `heal` replaces the weather
            await asyncio.sleep(_POLL_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self.closes:
            writer.close()
            return
        await self._passes(up=True)
        await self._passes(up=False)
        try:
            far_reader, far_writer = await asyncio.open_connection(self._broker_host, self._broker_port)
        except OSError:
            writer.close()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        pumps = [
            asyncio.ensure_future(self._pump(reader, far_writer, up=True)),
            asyncio.ensure_future(self._pump(far_reader, writer, up=False)),
        ]
        try:
            _, rest = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in rest:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except asyncio.CancelledError:  # by `stop`
            for pump in pumps:
                pump.cancel()
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """Carry bytes in one direction until either end closes."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_QUEUED)
        carrying = asyncio.ensure_future(self._carry(queue, writer, up=up))
        reading = asyncio.ensure_future(_read(reader, queue))
        try:
            await asyncio.wait({carrying})  # the end of file comes through the queue like everything else
        finally:
            reading.cancel()
            carrying.cancel()

    async def _carry(
        self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                came_s, data = await queue.get()
                await self._passes(up=up)
                await asyncio.sleep(max(0.0, came_s + self._weather(up=up).latency_s - time.monotonic()))
                if not data:
                    return
                await self._write(data, writer, up=up)

    async def _write(self, data: bytes, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """Write with the bandwidth and in the slices of the moment."""
        while data:
            await self._passes(up=up)
            weather = self._weather(up=up)
            size = min(weather.slice_bytes or len(data), len(data))
            if weather.bytes_per_s:
                size = min(size, max(1, int(weather.bytes_per_s * _POLL_S)))
            head, data = data[:size], data[size:]
            writer.write(head)
            self.carried_bytes["up" if up else "down"] += size
            await writer.drain()
            if weather.bytes_per_s:
                await asyncio.sleep(size / weather.bytes_per_s)
            elif weather.slice_bytes:
                await asyncio.sleep(0.001)


async def _read(reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
    """Put what comes, with its time, into the queue; empty bytes are the end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_READ_BYTES):
            await queue.put((time.monotonic(), data))
    await queue.put((time.monotonic(), b""))
