"""What the broker refuses or cannot bear is noticed, said once, and holds up nothing else."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitplace.bus.connection import Bus, Received
from splitplace.bus.publisher import MAX_STRIKES
from splitplace.bus.seldom import MAX_KEYS, PERIOD_S, SeldomWarnings
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import Broker
from splitplace.messages.cluster import NodeStatus
from splitplace.messages.topics import NODE_STATUS
from tests.support.brokers import ruled_broker
from tests.support.odd_brokers import odd_broker
from tests.support.waiting import until

BOOT = "0123456789abcdef"
UNBEARABLE = "a/" * 250 + "b"
"""A topic of 251 levels: Mosquitto ends the connection of whoever publishes on more than 200."""


@pytest.fixture
def closed_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker whose access list lets nobody do anything."""
    with ruled_broker(tmp_path, monkeypatch, "topic read nothing\n") as running:
        yield running


def status(node: str) -> NodeStatus:
    return NodeStatus(node=node, boot=BOOT, online=True)


def warnings_with(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if part in record.getMessage()]


async def test_a_refused_publication_is_told_to_its_caller_counted_and_said_once(
    closed_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    bus = Bus(Settings(broker=closed_broker.url), "sender")
    async with bus:
        taken = [await bus.publish(NODE_STATUS, status("n1")) for _ in range(5)]
        assert bus.is_connected
        assert bus.statistics.reconnects == 0
    assert taken == [False] * 5
    assert bus.statistics.refused == 5
    (line,) = warnings_with(caplog, "refuses publications")
    assert "node/n1/status: Not authorized" in line
    assert "access list" in line


async def test_a_refused_subscription_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    async def ignore(_: Received[NodeStatus]) -> None:
        pass

    async with odd_broker("refuses_subscriptions") as server:
        bus = Bus(Settings(broker=server.url), "receiver")
        bus.subscribe(NODE_STATUS, ignore)
        async with bus:
            await bus.connected()
    assert bus.statistics.refused == 1
    (line,) = warnings_with(caplog, "refuses the subscription")
    assert "node/+/status: Not authorized" in line
    assert "access list" in line


async def test_a_publication_that_costs_the_connection_is_given_up_and_the_rest_arrives(
    mosquitto_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(broker=mosquitto_url)
    receiver, sender = Bus(settings, "receiver"), Bus(settings, "sender")
    seen: set[str] = set()

    async def on_status(received: Received[NodeStatus]) -> None:
        seen.add(received.message.node)

    receiver.subscribe(NODE_STATUS, on_status)
    async with receiver, sender, asyncio.timeout(30):
        await receiver.connected()
        await sender.connected()
        others = [asyncio.create_task(sender.publish(NODE_STATUS, status(f"n{n}"))) for n in range(20)]
        poison = asyncio.create_task(sender.publish_raw(UNBEARABLE, b"x", absolute=True))
        others += [asyncio.create_task(sender.publish(NODE_STATUS, status(f"m{n}"))) for n in range(20)]
        assert await poison is False
        assert all(await asyncio.gather(*others))
        await until(lambda: len(seen) == 40)
        assert await sender.publish(NODE_STATUS, status("after"))
    assert sender.statistics.undeliverable == 1
    assert sender.statistics.reconnects == MAX_STRIKES
    assert len(warnings_with(caplog, "gave up a publication of 1 bytes")) == 1


async def test_a_restart_of_the_broker_makes_no_publication_undeliverable(broker: Broker) -> None:
    sender = Bus(Settings(broker=broker.url), "sender")
    async with sender, asyncio.timeout(50):
        await sender.connected()
        sent = []
        for restart in range(4):
            sent += [asyncio.create_task(sender.publish(NODE_STATUS, status(f"n{n}"))) for n in range(20)]
            await asyncio.sleep(0)
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            await until(lambda: sender.statistics.reconnects > restart)  # noqa: B023 - ends before the next
        assert all(await asyncio.gather(*sent))
    assert sender.statistics.undeliverable == 0


async def test_a_client_whose_session_is_taken_over_says_so_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with odd_broker("says_taken_over") as server, Bus(Settings(broker=server.url), "n1"):
        await until(lambda: len(server.taken_s) == 4)
    (line,) = warnings_with(caplog, "another client uses the name n1")
    assert "choose --node" in line


async def test_two_clients_of_one_name_hear_why_their_connections_end(
    broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(broker=broker_url)
    first, second = Bus(settings, "n1"), Bus(settings, "n1")
    async with first, second:
        await until(lambda: warnings_with(caplog, "another client uses the name n1"))


def test_a_warning_is_repeated_only_after_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    warnings = SeldomWarnings(logging.getLogger("test"), lambda: now_s)
    for now_s in (0.0, 1.0, PERIOD_S - 1, PERIOD_S, PERIOD_S + 1):
        warnings.warn("one", "at %s", now_s)
        warnings.warn("other", "other")
    assert [line.split(" [")[0] for line in caplog.messages] == ["at 0.0", "other", f"at {PERIOD_S}", "other"]


def test_warnings_of_very_many_topics_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    warnings = SeldomWarnings(logging.getLogger("test"), lambda: 0.0)
    for number in range(10 * MAX_KEYS):
        warnings.warn(f"answer/c/{number}", "refused")
    assert len(caplog.messages) == MAX_KEYS


def test_repetitions_are_counted_and_said_with_the_next_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    now_s = 0.0
    warnings = SeldomWarnings(logging.getLogger("test"), lambda: now_s)
    for now_s in (0.0, 1.0, 2.0, PERIOD_S, PERIOD_S + 1, 3 * PERIOD_S):  # noqa: B007 - the clock reads it
        warnings.warn("one", "lost %s", "it")
    shown = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert shown == ["lost it", "lost it [2 more like this]", "lost it [1 more like this]"]
    assert sum(record.levelno == logging.DEBUG for record in caplog.records) == 3


def test_what_is_remembered_for_warnings_is_bounded() -> None:
    now_s = 0.0
    warnings = SeldomWarnings(logging.getLogger("test"), lambda: now_s)
    for number in range(100 * MAX_KEYS):
        now_s = float(number)
        warnings.warn(f"topic {number}", "refused")
    assert len(warnings._said) <= 2 * MAX_KEYS + 1
