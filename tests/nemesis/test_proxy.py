"""A link that is bad and becomes good again delivers every byte."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from nemesis.proxy import LOOPBACK, Link

CONTENT = bytes(range(256)) * 200


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection through a link to a server that sends back what it receives."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, LOOPBACK, 0)
    link = Link(server.sockets[0].getsockname()[1])
    await link.start()
    reader, writer = await asyncio.open_connection(LOOPBACK, link.port)
    try:
        yield link, reader, writer
    finally:
        writer.close()
        await link.stop()
        server.close()


@pytest.mark.parametrize(("action", "strength"), [("latency", 0.01), ("bandwidth", 1e6), ("slicing", 500)])
async def test_a_slow_link_delivers_everything_in_order(action: str, strength: float) -> None:
    async with linked() as (link, reader, writer):
        link.inflict(action, strength)
        writer.write(CONTENT)
        assert await asyncio.wait_for(reader.readexactly(len(CONTENT)), 10) == CONTENT


async def test_latency_delays() -> None:
    async with linked() as (link, reader, writer):
        link.inflict("latency", 0.05)
        began_s = time.monotonic()
        writer.write(b"x")
        await reader.readexactly(1)
        assert time.monotonic() - began_s >= 0.1


@pytest.mark.parametrize("action", ["blackhole", "blackhole-up", "blackhole-down"])
async def test_a_black_hole_holds_back_until_it_is_healed(action: str) -> None:
    async with linked() as (link, reader, writer):
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        link.inflict(action, 0)
        writer.write(b"during")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(6), 0.1)
        link.heal()
        assert await asyncio.wait_for(reader.readexactly(6), 10) == b"during"


async def test_a_reset_tears_the_connection_and_the_next_one_works() -> None:
    async with linked() as (link, reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        link.inflict("reset", 0)
        with pytest.raises(OSError, match="reset"):
            await asyncio.wait_for(reader.readexactly(1), 10)
        reader2, writer2 = await asyncio.open_connection(LOOPBACK, link.port)
        writer2.write(b"y")
        assert await asyncio.wait_for(reader2.readexactly(1), 10) == b"y"
        writer2.close()


async def test_a_closing_link_accepts_and_closes() -> None:
    async with linked() as (link, _, _writer):
        link.inflict("closing", 0)
        reader, writer = await asyncio.open_connection(LOOPBACK, link.port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


def test_a_link_cannot_do_everything() -> None:
    with pytest.raises(ValueError, match="cannot do"):
        Link(1).inflict("burn", 0)
