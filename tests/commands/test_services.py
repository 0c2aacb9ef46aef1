"""All services in one process: what happens when one of them ends, and whose settings each has."""

import asyncio
import logging
from pathlib import Path

import pytest

from splitplace.bus.process import PART
from splitplace.bus.settings import Settings
from splitplace.commands.services import Part, parts, run_together
from splitplace.errors import ConfigurationError
from splitplace.messages.topics import PLACER, SERVICES, SPLITTER
from splitplace.policies.pairs import PolicyPair
from splitplace.services.placer.settings import PlacerSettings
from splitplace.services.splitter.settings import SplitterSettings


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
