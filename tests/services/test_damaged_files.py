"""Parts x damages: a part says once what is wrong with its files, and works with the rest."""

import asyncio
import contextlib
import json
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import connected
from splitplace.commands.shared.system_report import look, report_on
from splitplace.errors import ConfigurationError
from splitplace.messages.cluster import FragmentRequest
from splitplace.messages.metrics import ServiceMetrics
from splitplace.messages.topics import (
    APPLICATION,
    FRAGMENT_MISSING,
    FRAGMENT_REQUEST,
    METRICS_SERVICE,
    PLACER,
    SPLITTER,
)
from splitplace.services.placer.service import Placer
from splitplace.services.placer.settings import PlacerSettings
from splitplace.services.splitter.service import Splitter
from splitplace.services.splitter.settings import SplitterSettings
from splitplace.storage.model_store import MANIFEST, PIECES, ModelStore
from tests.support.damages import DAMAGES
from tests.support.observer import Observer
from tests.support.running import running
from tests.support.tiny_application import build_tiny_application
from tests.support.waiting import PATIENCE_S

GOOD, BAD = "good", "bad"


def _nested(path: Path) -> None:
    path.write_text("[" * 100_000)


STATE_DAMAGES: Mapping[str, Callable[[Path], object]] = {
    **DAMAGES,
    "another version": lambda path: path.write_text('{"version": 999, "learnt": 1}'),
    "other types": lambda path: path.write_text('{"version": 1, "policy": [], "correction": 3, "learnt": 0}'),
    "nested without end": _nested,
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with two networks of the same fragments."""
    folder = tmp_path / "store"
    application = build_tiny_application(folder)
    (folder / application.name).rename(folder / GOOD)
    shutil.copytree(folder / GOOD, folder / BAD)
    for name in (GOOD, BAD):
        manifest = folder / name / MANIFEST
        manifest.write_text(manifest.read_text().replace(f'"{application.name}"', f'"{name}"', 1))
    assert [each.name for each in ModelStore(folder).applications()] == [BAD, GOOD]
    return folder


@pytest.fixture(autouse=True)
def _parts_speak_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitplace.bus.service.METRICS_PERIOD_S", 0.1)


def work(service: str, url: str, folder: Path) -> Coroutine[Any, Any, None]:
    """What a splitter or placer does until its end."""
    given: dict[str, Any] = {"broker": url, "state_dir": folder / "state"}
    if service == SPLITTER:
        return Splitter(SplitterSettings(store=folder / "store", **given)).run()
    return Placer(PlacerSettings(**given)).run()


@contextlib.asynccontextmanager
async def part(service: str, url: str, folder: Path) -> AsyncIterator[Observer]:
    """A running splitter or placer that was heard once."""
    observer = Observer(url, METRICS_SERVICE, APPLICATION, FRAGMENT_MISSING)
    async with observer.bus, running(work(service, url, folder)):
        await observer.until(METRICS_SERVICE, lambda said: said.service == service, PATIENCE_S)
        yield observer


def trouble(observer: Observer) -> str:
    said: ServiceMetrics = observer.heard(METRICS_SERVICE)[-1]
    return said.trouble


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("damage", STATE_DAMAGES)
@pytest.mark.parametrize("service", [SPLITTER, PLACER])
async def test_a_damaged_state_file_is_kept_under_another_name_and_named(
    service: str, damage: str, mosquitto_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "state" / f"{service}.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"version": 1, "correction": {}, "learnt": {"a": [1.0] * 100}}))
    STATE_DAMAGES[damage](file)
    async with part(service, mosquitto_url, tmp_path) as observer:
        assert f"{file} is not usable" in trouble(observer)
        assert file.with_name(f"{file.name}.unusable").exists()
        assert not file.exists() or file.is_file()
        assert len([each for each in caplog.records if str(file) in each.getMessage()]) == 1
        async with connected(Settings(broker=mosquitto_url), "test") as client:
            report = report_on(await look(client, Settings(broker=mosquitto_url)))
        assert [each.name for each in report.services if each.online and each.trouble] == [service]
    async with part(service, mosquitto_url, tmp_path) as observer:
        await observer.until(METRICS_SERVICE, lambda said: not said.trouble, PATIENCE_S)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("service", [SPLITTER, PLACER])
async def test_a_state_folder_that_is_none_is_an_error_that_says_what_to_do(
    service: str, mosquitto_url: str, tmp_path: Path
) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(ConfigurationError, match=r"state: is not a folder; choose another"):
        async with asyncio.timeout(PATIENCE_S):
            await work(service, mosquitto_url, tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_manifest_costs_its_own_network_only(
    damage: str, mosquitto_url: str, tmp_path: Path, store: Path
) -> None:
    DAMAGES[damage](store / BAD / MANIFEST)
    async with part(SPLITTER, mosquitto_url, tmp_path) as observer:
        await observer.until(APPLICATION, lambda application: application.name == GOOD, PATIENCE_S)
        assert f"{store / BAD / MANIFEST}: " in trouble(observer)
        assert {application.name for application in observer.heard(APPLICATION)} == {GOOD}


async def test_a_file_in_the_place_of_a_network_is_passed_over(
    mosquitto_url: str, tmp_path: Path, store: Path
) -> None:
    shutil.rmtree(store / BAD)
    (store / BAD).touch()
    async with part(SPLITTER, mosquitto_url, tmp_path) as observer:
        await observer.until(APPLICATION, lambda application: application.name == GOOD, PATIENCE_S)
        assert trouble(observer) == ""


@pytest.mark.parametrize("damage", [*DAMAGES, "missing", "flipped"])
async def test_a_damaged_fragment_is_named_and_nobody_gets_it(
    damage: str, mosquitto_url: str, tmp_path: Path, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (good, *_) = ModelStore(store).applications()
    sha256 = good.files[0].sha256
    for name in (GOOD, BAD):
        path = store / name / PIECES / sha256
        if damage == "missing":
            path.unlink()
        elif damage == "flipped":
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        else:
            DAMAGES[damage](path)
    caplog.set_level(logging.WARNING)
    async with part(SPLITTER, mosquitto_url, tmp_path) as observer:
        for _ in range(3):
            await observer.publish(
                FRAGMENT_REQUEST, FragmentRequest(node="n1", fragment=sha256, first_chunk=0, chunks=1)
            )
        await observer.until(FRAGMENT_MISSING, lambda missing: missing.fragment == sha256, PATIENCE_S)
        await observer.until(METRICS_SERVICE, lambda said: sha256 in said.trouble, PATIENCE_S)
        await observer.until(APPLICATION, lambda said: said.name == GOOD, PATIENCE_S)
        await observer.until(APPLICATION, lambda said: said.name == BAD, PATIENCE_S)
    assert len([each for each in caplog.records if sha256 in each.getMessage()]) <= 2 * 2
