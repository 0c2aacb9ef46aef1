"""Two parts of one name: exactly one goes on, and the other says what to do."""

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from splitplace.bus import namesake
from splitplace.bus.background import now_ms
from splitplace.bus.client import BrokerClient
from splitplace.bus.connection import Bus
from splitplace.bus.identity import Session
from splitplace.bus.namesake import (
    ANSWER_PAUSE_MS,
    SETTLED_AFTER_MS,
    NamesakeError,
    Rivals,
    Verdict,
    check_name,
)
from splitplace.bus.service import Service, new_boot_id
from splitplace.bus.settings import Settings
from splitplace.edge_node import start
from splitplace.edge_node.agent import Agent
from splitplace.edge_node.gains import ONE_THREAD
from splitplace.edge_node.own_speed import OwnSpeed
from splitplace.edge_node.settings import NodeSettings
from splitplace.messages.cluster import NodeStatus, ServiceStatus
from splitplace.messages.topics import GATEWAY, NODE_STATUS, PLACER, SERVICE_STATUS
from splitplace.storage.client_secret import kept_secret
from tests.support.observer import Observer
from tests.support.running import running
from tests.support.waiting import until

LOW, HIGH = "0" * 16, "f" * 16


def settings_of(broker_url: str, folder: Path) -> NodeSettings:
    return NodeSettings(broker=broker_url, node="kit", state_dir=folder)


def node_agent(broker_url: str, folder: Path) -> Agent:
    return Agent(
        settings_of(broker_url, folder), speed=OwnSpeed(1.0, ONE_THREAD), encode_megabytes_per_second=100.0
    )


@contextlib.asynccontextmanager
async def started_together(*works: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run some parts while inside."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_one_is_left(tasks: Sequence[asyncio.Task[None]]) -> int:
    """Wait until all but one have ended with a NamesakeError. Return the index of the one that goes on."""
    await until(lambda: sum(task.done() for task in tasks) == len(tasks) - 1, 20)
    assert all(isinstance(task.exception(), NamesakeError) for task in tasks if task.done())
    return next(index for index, task in enumerate(tasks) if not task.done())


# --- pure ---------------------------------------------------------------------------------------------


def status(boot: str, *, online: bool = True, settled: bool = False) -> NodeStatus:
    return NodeStatus(node="kit", boot=boot, online=online, settled=settled)


def online_for(boot: str, milliseconds: float, at_ms: float = 0.0) -> Rivals:
    """A part that was alone for this long, at a time."""
    rivals = Rivals(boot)
    rivals.announced(at_ms - milliseconds)
    return rivals


def last_verdicts(rivals: dict[str, Rivals], at_ms: float = 0.0, turns: int = 20) -> list[str]:
    """Let everybody who is left speak, again and again. Return who is left."""
    for turn in range(turns):
        now_ms = at_ms + turn * ANSWER_PAUSE_MS
        for speaker in list(rivals):
            if speaker not in rivals:
                continue
            said = status(speaker, settled=rivals[speaker].announced(now_ms))
            for boot in [boot for boot in rivals if boot != speaker]:
                if rivals[boot].heard(said, now_ms) is Verdict.GIVE_WAY:
                    del rivals[boot]
    return list(rivals)


boots = st.lists(st.integers(0, 2**64 - 1).map("{:016x}".format), min_size=2, max_size=5, unique=True)
ages_ms = st.lists(st.floats(0, 20_000), min_size=5, max_size=5)


@given(boots, ages_ms)
def test_of_any_number_exactly_one_is_left_and_none_that_came_later(
    names: list[str], ages: list[float]
) -> None:
    (left,) = last_verdicts({name: online_for(name, age) for name, age in zip(names, ages, strict=False)})
    settled = [name for name, age in zip(names, ages, strict=False) if age >= SETTLED_AFTER_MS]
    assert left == min(settled or names)


@pytest.mark.parametrize("newcomer", [LOW, HIGH])
def test_whoever_was_there_before_stays_whatever_the_boot_ids(newcomer: str) -> None:
    old = {LOW: HIGH, HIGH: LOW}[newcomer]
    assert last_verdicts({old: online_for(old, SETTLED_AFTER_MS), newcomer: online_for(newcomer, 0.0)}) == [
        old
    ]


def test_two_that_fight_do_not_settle() -> None:
    low, high = online_for(LOW, 0.0), online_for(HIGH, 0.0)
    for turn in range(100):
        low.heard(status(HIGH), turn * ANSWER_PAUSE_MS)
    assert not low.announced(100 * ANSWER_PAUSE_MS)
    assert high.announced(SETTLED_AFTER_MS)


def test_what_a_dead_part_left_on_its_way_ends_nobody() -> None:
    rivals = online_for(HIGH, 0.0)
    for online in (True, False, True, False, False):
        assert rivals.heard(status(LOW, online=online), 0.0) is Verdict.ANSWER


def test_announcements_of_long_ago_do_not_count() -> None:
    rivals = online_for(HIGH, 0.0)
    for hour in range(10):
        assert rivals.heard(status(LOW), 3.6e6 * hour) is Verdict.ANSWER


def test_our_own_last_will_is_corrected_and_our_own_announcement_is_no_news() -> None:
    rivals = online_for(LOW, 0.0)
    assert rivals.heard(status(LOW, online=False), 0.0) is Verdict.ANSWER
    assert rivals.heard(status(LOW), 0.0) is Verdict.IGNORE


def test_strangers_without_end_take_no_memory_without_end() -> None:
    rivals = online_for(HIGH, 0.0)
    for number in range(1000):
        rivals.heard(status(f"{number:016x}"), float(number))
    assert len(rivals._heard) <= namesake._MAX_REMEMBERED


# --- with a broker ------------------------------------------------------------------------------------


async def test_the_second_node_of_a_name_ends_and_says_what_to_do(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namesake, "SETTLED_AFTER_MS", 1000.0)
    first = node_agent(broker_url, tmp_path / "1")
    observer = Observer(broker_url, NODE_STATUS)
    async with observer.bus, running(first.run()) as run:
        await observer.until(NODE_STATUS, lambda status: status.online)
        await until(lambda: first._service._rivals.announced(now_ms()))
        with pytest.raises(NamesakeError, match=r"another node .* is called kit: .*--node"):
            await start.run(settings_of(broker_url, tmp_path / "2"))
        assert not run.done()
        assert first._service.statistics.reconnects == 0


async def test_a_second_service_of_a_name_ends_and_says_what_to_do(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(namesake, "SETTLED_AFTER_MS", 1000.0)
    settings = Settings(broker=broker_url)
    observer = Observer(broker_url, SERVICE_STATUS)
    first = Service(PLACER, settings)
    async with observer.bus, running(first.run()) as run:
        await observer.until(SERVICE_STATUS, lambda status: status.online)
        await until(lambda: first._rivals.announced(now_ms()))
        with pytest.raises(NamesakeError, match=r"another placer runs on .*--prefix"):
            await Service(PLACER, settings).run()
        assert not [record for record in caplog.records if record.levelname == "ERROR"], "it is said once"
        assert not run.done()
        other = Service(PLACER, Settings(broker=broker_url, prefix="another"))
        async with running(other.run()):
            await other.connected()
            assert not run.done()


@pytest.mark.parametrize("state", ["own", "cloned", "shared"])
async def test_of_two_nodes_that_start_at_the_same_moment_exactly_one_goes_on(
    broker_url: str, tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody_there(*_: object) -> None:
        pass

    monkeypatch.setattr("splitplace.bus.service.check_name", nobody_there)  # as if both asked too early
    folders = [tmp_path / "1", tmp_path / ("1" if state == "shared" else "2")]
    if state == "cloned":
        async with running(node_agent(broker_url, folders[0]).run()):
            pass
        shutil.copytree(folders[0], folders[1])
    agents = [node_agent(broker_url, folder) for folder in folders]
    observer = Observer(broker_url, NODE_STATUS)
    async with observer.bus, started_together(*(each.run() for each in agents)) as tasks:
        winner = agents[await until_one_is_left(tasks)]
        online = NodeStatus(node="kit", boot=winner._boot, online=True)
        await until(lambda: observer.heard(NODE_STATUS)[-1] == online)
        assert winner._service.health.is_connected


async def test_a_cloned_gateway_does_not_fight_for_its_session(broker_url: str, tmp_path: Path) -> None:
    """Both have the secret of the session. The broker lets only one have it at a time."""
    settings = Settings(broker=broker_url, state_dir=tmp_path)
    services = []
    for _ in range(2):
        service = Service(GATEWAY, settings)
        secret = kept_secret(settings.paths.gateway_client_id)
        service.connection("intake", session=Session(60, clean_start=False), secret=secret)
        services.append(service)
    async with started_together(*(service.run() for service in services)) as tasks:
        winner = services[await until_one_is_left(tasks)]
        await until(lambda: winner.health.is_connected, 10)


async def test_a_late_last_will_of_an_earlier_process_is_corrected(broker_url: str) -> None:
    service, observer = Service(PLACER, Settings(broker=broker_url)), Observer(broker_url, SERVICE_STATUS)
    async with observer.bus, running(service.run()):
        hello = await observer.until(SERVICE_STATUS, lambda status: status.online)
        await observer.publish(SERVICE_STATUS, hello.model_copy(update={"boot": HIGH, "online": False}))
        await until(
            lambda: [status.online for status in observer.heard(SERVICE_STATUS)][-2:] == [False, True]
        )
        assert observer.heard(SERVICE_STATUS)[-1] == hello


async def test_what_a_dead_node_left_behind_keeps_nobody_away(broker_url: str, tmp_path: Path) -> None:
    settings = settings_of(broker_url, tmp_path)
    async with Bus(settings, "leaver") as bus:
        await bus.publish(NODE_STATUS, NodeStatus(node="kit", boot="0123456789abcdef", online=True))
    await check_name(settings, "asks", NodeStatus(node="kit", boot=new_boot_id(), online=False))


async def test_a_broker_that_stands_still_keeps_no_part_from_starting(
    mosquitto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing_comes_back(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    settings = settings_of(mosquitto_url, tmp_path)
    async with Bus(settings, "leaver") as bus:
        await bus.publish(NODE_STATUS, NodeStatus(node="kit", boot=LOW, online=True))
    monkeypatch.setattr(namesake, "_CHECK_S", 1.0)
    monkeypatch.setattr(BrokerClient, "publish_once", nothing_comes_back)
    async with asyncio.timeout(20):
        await check_name(settings, "asks", NodeStatus(node="kit", boot=HIGH, online=False))


async def test_a_part_without_a_broker_keeps_its_name() -> None:
    status = ServiceStatus(service=PLACER, boot=new_boot_id(), online=False, software="test")
    await check_name(Settings(broker="mqtt://127.0.0.1:9"), "asks", status)


async def test_a_client_with_the_public_part_of_a_client_id_throws_nobody_out(broker_url: str) -> None:
    settings = Settings(broker=broker_url)
    service = Service(GATEWAY, settings)
    service.connection("intake", session=Session(60, clean_start=False), secret="0" * 32)
    async with running(service.run()):
        await service.connected()
        for part, purpose in itertools.product(("gateway", "placer"), ("", ":intake", ":answers", "-intake")):
            client = paho.Client(
                CallbackAPIVersion.VERSION2, f"splitplace-{part}{purpose}", protocol=paho.MQTTv5
            )
            await asyncio.to_thread(client.connect, settings.host, settings.port)
            client.loop_start()
            await until(client.is_connected)
            client.disconnect()
            client.loop_stop()
        assert service.health.is_connected
        assert service.statistics.reconnects == 0


async def test_no_client_id_is_logged_or_guessable(
    mosquitto_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    service = Service(PLACER, Settings(broker=mosquitto_url))
    tensors = service.connection("tensors")
    async with running(service.run()):
        await service.connected()
        for bus in (service.bus, tensors):
            bus._warn_of_namesake("a test")
    secrets = {bus._identity.client_id.rpartition("-")[2] for bus in (service.bus, tensors)}
    assert all(len(secret) == 32 for secret in secrets)
    assert "splitplace-placer:tensors" in caplog.text
    assert not any(secret in caplog.text for secret in secrets)


async def test_a_part_that_is_asked_to_end_while_it_looks_for_namesakes_ends(mosquitto_url: str) -> None:
    """aiomqtt may lose a cancellation that comes with the broker's word; the part then ran on for ever."""
    for turns in range(0, 60, 3):
        task = asyncio.create_task(Service(PLACER, Settings(broker=mosquitto_url)).run())
        for _ in range(turns):
            await asyncio.to_thread(lambda: None)  # lets the part go on a little
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=10)
        assert done
