"""The short-lived client of commands."""

import asyncio

import pytest

from splitplace.bus.publication import Publication
from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import CONNECT_S, connected
from splitplace.errors import UnreachableError
from tests.support.odd_brokers import odd_broker

MANY = 1000
"""More messages than a broker sends without acknowledgements."""


async def test_a_proxy_that_accepts_and_closes_is_noticed_at_once() -> None:
    async with odd_broker("closes") as server:
        clock = asyncio.get_running_loop().time
        began_s = clock()
        with pytest.raises(UnreachableError, match="does a proxy answer for a broker that is down"):
            async with connected(Settings(broker=server.url), "test"):
                pytest.fail("there is no broker")
        assert clock() - began_s < CONNECT_S / 2


async def test_a_command_takes_any_number_of_messages(broker_url: str) -> None:
    settings = Settings(broker=broker_url)
    async with connected(settings, "test") as client:
        await client.subscribe("x", qos=1)
        for number in range(MANY):
            await client.publish_once(Publication("x", str(number).encode()))
            assert (await anext(client.messages)).payload == str(number).encode()
