"""A part under systemd tells when it is ready, and that it makes progress."""

import asyncio
import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from splitplace.bus.background import now_ms
from splitplace.bus.service import Service
from splitplace.bus.settings import Settings
from splitplace.bus.supervisor import Supervisor
from tests.support.running import running
from tests.support.waiting import until


class Systemd:
    """The end of the socket on which systemd listens."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)  # noqa: FBT003 - as the standard library has it
        self._heard: list[str] = []

    @property
    def heard(self) -> list[str]:
        """All lines so far."""
        while True:
            try:
                self._heard += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self._heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    address = str(tmp_path / "notify") if request.param == "file" else f"@splitplace-test-{os.getpid()}"
    listener = Systemd(address)
    yield listener
    listener.close()


def test_what_systemd_says_is_taken_out_of_the_environment(systemd: Systemd) -> None:
    environment = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}
    supervisor = Supervisor.found(environment, pid=7)
    assert environment == {}  # children must not speak for their parent
    assert (supervisor.watchdog_s, supervisor.feed_every_s) == (30.0, 10.0)
    supervisor.ready("online")
    supervisor.feed()
    assert systemd.heard == ["READY=1", "STATUS=online", "WATCHDOG=1"]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"WATCHDOG_USEC": "30000000"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"},
    ],
)
def test_nobody_is_fed_who_does_not_wait_for_it(said: dict[str, str]) -> None:
    supervisor = Supervisor.found(said, pid=7)
    assert supervisor.feed_every_s is None
    supervisor.ready("nobody listens")  # and nothing breaks


@pytest.fixture
def watched(systemd: Systemd, mosquitto_url: str, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """After the broker has started: Mosquitto, too, tells whoever is in its environment that it is ready."""
    assert mosquitto_url
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    return systemd


async def test_a_part_is_ready_once_it_is_online_and_not_before(watched: Systemd, mosquitto_url: str) -> None:
    service = Service("placer", Settings(broker="mqtt://127.0.0.1:9"))
    async with running(service.run()):
        await until(lambda: "WATCHDOG=1" in watched.heard)  # a broker that is away is no reason for a restart
        assert "READY=1" not in watched.heard
    service = Service("placer", Settings(broker=mosquitto_url))
    service._supervisor = Supervisor(watched.address, 0.3)
    async with running(service.run()):
        await until(lambda: "READY=1" in watched.heard)


async def test_the_watchdog_starves_while_periodic_work_hangs(watched: Systemd, mosquitto_url: str) -> None:
    service = Service("placer", Settings(broker=mosquitto_url))
    freed = asyncio.Event()

    async def hang() -> None:
        await freed.wait()

    service.every(1000.0, hang)
    async with running(service.run()):
        await service.connected()
        await until(lambda: service.health.late_ms > 300.0)
        await asyncio.sleep(0)
        fed = watched.heard.count("WATCHDOG=1")
        begun_ms = now_ms()
        await until(lambda: now_ms() - begun_ms > 600.0)
        assert watched.heard.count("WATCHDOG=1") <= fed + 1  # a feed that was under way
        freed.set()
        await until(lambda: watched.heard.count("WATCHDOG=1") > fed + 2)


def test_children_do_not_say_that_their_parent_lives(tmp_path: Path) -> None:
    environment = {"SPLITPLACE_ALIVE_FILE": str(tmp_path / "alive")}
    Supervisor.found(environment).alive()
    assert (environment, (tmp_path / "alive").exists()) == ({}, True)
    Supervisor(alive_file=tmp_path / "no folder" / "alive").alive()  # and nothing breaks


async def test_a_part_touches_its_file_while_it_is_online_and_not_before(
    mosquitto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitplace.bus.service.ALIVE_EVERY_S", 0.05)
    file = tmp_path / "alive"
    monkeypatch.setenv("SPLITPLACE_ALIVE_FILE", str(file))
    service = Service("placer", Settings(broker="mqtt://127.0.0.1:9"))
    rounds: list[int] = []
    service.every(0.05, partial(_count, rounds))
    async with running(service.run()):
        await until(lambda: len(rounds) > 5)
        assert not file.exists()
    monkeypatch.setenv("SPLITPLACE_ALIVE_FILE", str(file))
    service = Service("placer", Settings(broker=mosquitto_url))
    async with running(service.run()):
        await until(file.exists)
        os.utime(file, (0, 0))
        await until(lambda: file.stat().st_mtime > 0)


async def _count(rounds: list[int]) -> None:
    rounds.append(1)


async def test_a_part_whose_work_hangs_does_not_touch_its_file(
    mosquitto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitplace.bus.service.ALIVE_EVERY_S", 0.05)
    monkeypatch.setattr("splitplace.bus.service._LATE_MS", 200.0)
    file = tmp_path / "alive"
    monkeypatch.setenv("SPLITPLACE_ALIVE_FILE", str(file))
    service = Service("placer", Settings(broker=mosquitto_url))
    freed = asyncio.Event()
    service.every(1000.0, partial(_hang, freed))
    async with running(service.run()):
        await service.connected()
        await until(lambda: service.health.late_ms > 400.0)
        file.unlink(missing_ok=True)
        begun_ms = now_ms()
        await until(lambda: now_ms() - begun_ms > 400.0)
        assert not file.exists()
        freed.set()
        await until(file.exists)


async def _hang(freed: asyncio.Event) -> None:
    await freed.wait()
