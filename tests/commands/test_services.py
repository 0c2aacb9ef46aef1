"""All services in one process: what happens when one of them ends, and whose settings each has."""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from splitplace.bus.process import PART
from splitplace.bus.settings import Settings
from splitplace.commands import services
from splitplace.commands.processes.broker import free_port
from splitplace.commands.services import Part, parts, run_together
from splitplace.errors import ConfigurationError
from splitplace.messages.topics import PLACER, SERVICES, SPLITTER
from splitplace.policies.pairs import PolicyPair
from splitplace.services.placer.settings import PlacerSettings
from splitplace.services.splitter.settings import SplitterSettings
from tests.support.waiting import block_until


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_the_end_of_one_service_ends_all_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def steady() -> None:
        try:
            await for_ever()
        finally:
            ended.append("steady")

    async def broken() -> None:
        await asyncio.sleep(0)
        raise ConfigurationError("no such folder")

    chosen = {"one": Part(Settings(), steady), "two": Part(Settings(), broken)}
    with pytest.raises(ConfigurationError, match="no such folder"), caplog.at_level(logging.ERROR):
        await run_together(chosen)
    assert ended == ["steady"]
    assert "two ends, and all others with it: no such folder" in caplog.text


async def test_a_service_that_just_returns_ends_all() -> None:
    async def returns() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="two has ended"):
        await run_together({"one": Part(Settings(), for_ever), "two": Part(Settings(), returns)})


async def test_a_service_that_does_not_end_cannot_keep_the_process_alive(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given_up: list[bool] = []
    may_end = asyncio.Event()

    async def stubborn() -> None:
        try:
            await for_ever()
        finally:
            await may_end.wait()

    async def broken() -> None:
        await asyncio.sleep(0)
        raise ConfigurationError("no such folder")

    def give_up() -> None:
        given_up.append(True)
        may_end.set()

    monkeypatch.setattr(services, "END_S", 0.01)
    monkeypatch.setattr(services, "_give_up", give_up)
    with pytest.raises(ConfigurationError), caplog.at_level(logging.CRITICAL):
        await run_together({"one": Part(Settings(), stubborn), "two": Part(Settings(), broken)})
    assert given_up == [True]
    assert "one: not ended after" in caplog.text


def test_up_starts_the_services_again_when_their_process_dies(tmp_path: Path) -> None:
    where = ("--broker", f"mqtt://127.0.0.1:{free_port()}", "--state-dir", str(tmp_path), "--no-dashboard")
    command = [sys.executable, "-m", "splitplace", "up", *where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as up:
        assert up.stdout is not None
        try:
            started = up.stdout.readline()
            pid = int(re.findall(r"services +process (\d+)", started)[0])
            os.kill(pid, signal.SIGKILL)
            while "restarting services" not in (line := up.stdout.readline()):
                assert line, "it has ended"
            block_until(lambda: {child.pid for child in psutil.Process(up.pid).children()} - {pid})
        finally:
            up.terminate()


async def test_each_service_knows_its_name_for_the_log() -> None:
    names: list[str] = []

    async def note() -> None:
        names.append(PART.get())
        await asyncio.create_task(note_deeper())

    async def note_deeper() -> None:
        names.append(PART.get())
        await for_ever()

    running = asyncio.create_task(run_together({name: Part(Settings(), note) for name in ("one", "two")}))
    while len(names) < 4:  # noqa: ASYNC110 - tasks that only note
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(names) == ["one", "one", "two", "two"]
    assert not PART.get()


def test_each_service_has_its_own_settings(tmp_path: Path) -> None:
    chosen = parts({"state_dir": tmp_path, "prefix": "a/b"}, PolicyPair("rule", "random"))
    assert tuple(chosen) == SERVICES
    assert {part.settings.prefix for part in chosen.values()} == {"a/b"}
    splitter, placer = chosen[SPLITTER].settings, chosen[PLACER].settings
    assert isinstance(splitter, SplitterSettings)
    assert isinstance(placer, PlacerSettings)
    assert (splitter.policy, placer.placement) == ("rule", "random")
