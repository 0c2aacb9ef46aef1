"""Servers that take connections and then do not behave as a broker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

from tests.support.brokers import own_loopback

ACCEPTED = b"\x20\x03\x00\x00\x00"
"""CONNACK of MQTT 5: success."""
TAKEN_OVER = b"\xe0\x02\x8e\x00"
"""DISCONNECT of MQTT 5: session taken over."""
SUBSCRIBE = 0x82
NOT_AUTHORIZED = 0x87


class OddBroker:
    """Counts the connections it has taken, and closes those it holds on its way out."""

    def __init__(self) -> None:
        self.url = ""
        self.taken_s: list[float] = []
        """When each connection was taken, by the clock of the event loop."""
        self.lost_s: list[float] = []
        """When the other side ended a connection that this one kept."""
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def pauses_s(self) -> Sequence[float]:
        """Times between connections."""
        return [later - earlier for earlier, later in zip(self.taken_s, self.taken_s[1:], strict=False)]

    async def _take(self, writer: asyncio.StreamWriter) -> None:
        self.taken_s.append(asyncio.get_running_loop().time())
        self._writers.append(writer)

    async def _closes(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._take(writer)
        writer.close()

    async def _is_silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._take(writer)
        with contextlib.suppress(OSError):
            while await reader.read(4096):
                pass
        self.lost_s.append(asyncio.get_running_loop().time())
        writer.close()

    async def _closes_after_accepting(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._answer(reader, writer, ACCEPTED)
        writer.close()

    async def _closes_when_subscribed(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._answer(reader, writer, ACCEPTED)
        with contextlib.suppress(OSError):
            while (packet := await reader.read(4096)) and packet[0] != SUBSCRIBE:
                pass
        writer.close()

    async def _says_taken_over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._answer(reader, writer, ACCEPTED + TAKEN_OVER)
        writer.close()

    async def _refuses_subscriptions(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._answer(reader, writer, ACCEPTED)
        with contextlib.suppress(OSError):
            while packet := await reader.read(4096):
                if packet[0] == SUBSCRIBE:  # its number follows the length, one byte for short packets
                    writer.write(bytes([0x90, 4, *packet[2:4], 0, NOT_AUTHORIZED]))
        writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, packets: bytes
    ) -> None:
        await self._take(writer)
        with contextlib.suppress(OSError):
            await reader.read(4096)
            writer.write(packets)
            await writer.drain()


@contextlib.asynccontextmanager
async def odd_broker(kind: str) -> AsyncIterator[OddBroker]:
    """Run a server of a kind: what it does with each connection, as the methods of `OddBroker` are named."""
    broker = OddBroker()
    server = await asyncio.start_server(getattr(broker, f"_{kind}"), own_loopback(), 0)
    host, port = server.sockets[0].getsockname()[:2]
    broker.url = f"mqtt://{host}:{port}"
    try:
        yield broker
    finally:
        server.close()
        for writer in broker._writers:
            writer.close()


class Relay:
    """A proxy to a broker, as docker's: it takes connections while the broker is away, and closes them."""

    def __init__(self, broker_url: str) -> None:
        parts = urlsplit(broker_url)
        self._host, self._port = parts.hostname, parts.port
        self.url = ""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side ends it."""
        try:
            back, forth = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        copies = [asyncio.create_task(_copy(reader, forth)), asyncio.create_task(_copy(back, writer))]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for copy in copies:
            copy.cancel()
        forth.close()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while content := await reader.read(65536):
            writer.write(content)
            await writer.drain()


@contextlib.asynccontextmanager
async def relay_to(broker_url: str) -> AsyncIterator[Relay]:
    """Run a proxy to a broker."""
    relay = Relay(broker_url)
    server = await asyncio.start_server(relay.take, own_loopback(), 0)
    host, port = server.sockets[0].getsockname()[:2]
    relay.url = f"mqtt://{host}:{port}"
    try:
        yield relay
    finally:
        server.close()
