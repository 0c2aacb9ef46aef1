"""Messages that are handled as they are read, and publications that nobody waits for."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitplace.bus.connection import Bus, RawReceived
from splitplace.bus.settings import Settings
from splitplace.bus.subscriptions import Rest
from splitplace.commands.processes.broker import Broker
from splitplace.messages.topics import TASK_OF_CLIENT
from tests.support.brokers import ruled_broker
from tests.support.waiting import until

MANY = 600
"""More than any broker sends without an acknowledgement."""


def name_of(number: int) -> str:
    return TASK_OF_CLIENT.at(application="a", client=f"c{number}")


@pytest.fixture
def closed_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker on which nobody may publish outside SplitPlace's topics."""
    with ruled_broker(tmp_path, monkeypatch, "topic readwrite splitplace/#\n") as running:
        yield running


async def test_messages_that_a_look_handles_go_past_those_that_wait_for_workers(broker_url: str) -> None:
    settings = Settings(broker=broker_url)
    receiver, sender = Bus(settings, "receiver"), Bus(settings, "sender")
    looked: list[str] = []
    done: list[str] = []
    may_go_on = asyncio.Event()

    def look(raw: RawReceived) -> Rest | None:
        client = raw.parameters["client"]
        looked.append(client)

        async def rest() -> None:
            await may_go_on.wait()
            done.append(client)

        return rest if client == f"c{MANY - 1}" else None

    receiver.subscribe_looking(TASK_OF_CLIENT, look, workers=1, overflow=lambda _: None)
    async with receiver, sender:
        await asyncio.gather(receiver.connected(), sender.connected())
        for number in range(MANY):
            sender.post(name_of(number), b"x")
        await until(lambda: len(looked) == MANY)
        assert done == []
        may_go_on.set()
        await until(lambda: done == [f"c{MANY - 1}"])
    assert looked == [f"c{number}" for number in range(MANY)]


async def test_a_look_that_fails_costs_its_own_message_only(broker_url: str) -> None:
    settings = Settings(broker=broker_url)
    receiver, sender = Bus(settings, "receiver"), Bus(settings, "sender")
    looked: list[str] = []

    def look(raw: RawReceived) -> Rest | None:
        looked.append(raw.parameters["client"])
        if raw.parameters["client"] == "c0":
            raise RuntimeError("broken")
        return None

    receiver.subscribe_looking(TASK_OF_CLIENT, look, workers=1, overflow=lambda _: None)
    async with receiver, sender:
        await asyncio.gather(receiver.connected(), sender.connected())
        for number in range(3):
            sender.post(name_of(number), b"x")
        await until(lambda: len(looked) == 3)
        assert receiver.statistics.rejected == 1
        assert receiver.is_connected


async def test_while_a_flood_is_read_others_have_a_turn_for_each_turn_of_reading(mosquitto_url: str) -> None:
    """Turns of reading that each made one more of the next left nothing for anybody else."""
    settings = Settings(broker=mosquitto_url)
    receiver, sender = Bus(settings, "receiver"), Bus(settings, "sender")
    read = 0
    most_between_turns = 0

    def look(_: RawReceived) -> None:
        nonlocal read
        read += 1
        sum(range(20_000))  # work that does not wait

    async def others() -> None:
        nonlocal most_between_turns
        before = read
        while read < MANY:
            await asyncio.sleep(0)
            most_between_turns = max(most_between_turns, read - before)
            before = read

    receiver.subscribe_looking(TASK_OF_CLIENT, look, workers=1, overflow=lambda _: None)
    async with receiver, sender:
        await asyncio.gather(receiver.connected(), sender.connected())
        for number in range(MANY):
            sender.post(name_of(number), b"x")
        async with asyncio.timeout(60):
            await others()
    assert most_between_turns < MANY / 4


async def test_a_refused_post_is_told(closed_broker: Broker) -> None:
    told: list[str] = []
    async with Bus(Settings(broker=closed_broker.url), "sender") as bus:
        await bus.connected()
        bus.post("home/answers", b"x", absolute=True, refused=lambda: told.append("home"))
        bus.post(name_of(0), b"x", refused=lambda: told.append("ours"))
        await until(lambda: told)
        assert await bus.publish_raw(name_of(1), b"x")
    assert told == ["home"]
    assert bus.statistics.refused == 1


async def test_a_post_waits_for_the_broker_and_is_repeated_after_its_end(broker: Broker) -> None:
    settings = Settings(broker=broker.url)
    receiver, sender = Bus(settings, "receiver"), Bus(settings, "sender")
    seen: set[str] = set()

    async def keep(raw: RawReceived) -> None:
        seen.add(raw.parameters["client"])

    receiver.subscribe_raw(TASK_OF_CLIENT, keep)
    async with receiver, sender:
        sender.post(name_of(0), b"x")  # not connected yet
        await asyncio.gather(receiver.connected(), sender.connected())
        await asyncio.to_thread(broker.kill)
        await until(lambda: not receiver.is_connected)
        sender.post(name_of(1), b"x")
        await asyncio.to_thread(broker.start)
        await until(lambda: receiver.is_connected and sender.is_connected)
        sender.post(name_of(2), b"x")
        await until(lambda: "c2" in seen)
