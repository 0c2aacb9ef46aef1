"""Journal x damages: the gateway says what is wrong, keeps what it can, and takes tasks."""

import asyncio
import contextlib
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitplace.messages.task import Answer
from splitplace.messages.topics import METRICS_GATEWAY, METRICS_SERVICE
from splitplace.services.gateway import moments
from splitplace.services.gateway.journal import Journal, JournalError, Known
from splitplace.services.gateway.journal_file import open_journal
from splitplace.services.gateway.moments import Moment, passed_s
from splitplace.services.gateway.service import serve
from splitplace.services.gateway.settings import GatewaySettings
from tests.services.gateway.stimuli import entry
from tests.support.damages import DAMAGES
from tests.support.observer import Observer
from tests.support.running import running
from tests.support.waiting import PATIENCE_S, until

TASKS = 200
YEARS_S = 56 * 365.25 * 86400.0


def answer(number: int = 1) -> Answer:
    return Answer.model_validate(
        {
            "task": str(number),
            "client": "camera",
            "application": "digits",
            "status": "answered",
            "reason": "because",
        }
    )


async def fill(path: Path, tasks: int = TASKS, side: int = 64) -> None:
    """Leave a journal with unfinished tasks, each with a picture of a side of so many pixels."""
    async with Journal(path, durable=False) as journal:
        inputs = np.zeros((1, 1, side, side), np.uint8)
        await asyncio.gather(*(journal.accept(replace(entry(n), inputs=inputs)) for n in range(tasks)))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a journal as a backup or somebody's shell does."""
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_journal_is_kept_aside_and_tasks_are_taken(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite3"
    await fill(path)
    DAMAGES[damage](path)
    async with Journal(path, durable=False) as journal:
        left, _ = await journal.unfinished()
        assert await journal.accept(entry(TASKS + 1)) is None
        said = journal.trouble
    if damage == "empty":  # nothing is left, and nothing is wrong
        assert said == ""
        return
    assert f"journal {path} was damaged" in said
    assert "kept as gateway.sqlite3.unusable" in said
    assert (tmp_path / "gateway.sqlite3.unusable").exists()
    if damage in {"torn", "second half NUL"}:
        assert len(left) > TASKS / 10, "nothing was rescued"
        assert f"{len(left)} tasks were rescued" in said
    async with Journal(path, durable=False) as journal:
        assert journal.trouble == ""
        assert (await journal.unfinished())[0][-1].key == f"camera.{TASKS + 1}"


async def test_a_journal_that_is_deleted_while_in_use_is_told_and_tasks_are_still_taken(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state" / "gateway.sqlite3"
    path.parent.mkdir()
    async with Journal(path, durable=False) as journal:
        assert journal.trouble == ""
        shutil.rmtree(path.parent)
        assert await journal.accept(entry(1)) is None
        assert f"journal {path} was deleted while in use" in journal.trouble


def other_database(path: Path) -> None:
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE tasks (name TEXT)")
        connection.execute("INSERT INTO tasks VALUES ('buy milk')")
        connection.commit()


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


STRANGERS = {
    "a picture": lambda path: path.write_bytes(b"\x89PNG" + bytes(5000)),
    "a text": lambda path: path.write_text("dear diary"),
    "another database": other_database,
    **{name: damage for name, damage in DAMAGES.items() if name != "empty"},
}


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_a_file_that_no_gateway_has_used_is_left_alone(stranger: str, tmp_path: Path) -> None:
    path = tmp_path / "holiday"
    await fill(path)
    STRANGERS[stranger](path)
    path.with_name("holiday.lock").unlink()
    before = contents(tmp_path)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"stays as it is.*--journal.*move it away"):
            async with Journal(path, durable=False):
                pytest.fail("it is open")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_the_gateways_own_file_is_set_aside_also_without_its_lock(
    stranger: str, tmp_path: Path, broker_url: str
) -> None:
    settings = GatewaySettings(broker=broker_url, state_dir=tmp_path)
    await fill(settings.journal_file)
    STRANGERS[stranger](settings.journal_file)
    settings.journal_file.with_name("gateway.sqlite3.lock").unlink()
    observer = Observer(broker_url, METRICS_SERVICE)
    async with observer.bus, running(serve(settings)):
        await observer.until(METRICS_SERVICE, lambda seen: "kept as gateway.sqlite3.unusable" in seen.trouble)
    assert (tmp_path / "gateway.sqlite3.unusable").exists()


async def test_a_locked_journal_refuses_with_that_reason_and_is_well_afterwards(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gateway.sqlite3"
    async with Journal(path, durable=False) as journal:
        await journal.accept(entry(1))
        with locked(path):
            with pytest.raises(JournalError, match="database is locked"):
                await journal.accept(entry(2))
            assert "database is locked; new tasks are refused" in journal.trouble
        assert await journal.accept(entry(2)) is None
        assert journal.trouble == ""


async def test_a_journal_that_is_locked_at_the_start_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gateway.sqlite3"
    await fill(path, 3)
    opening = None
    with locked(path):
        opening = asyncio.create_task(_count(path))
        await until(lambda: "database is locked; trying again" in caplog.text)
        assert not opening.done()
    assert await opening == 3


async def _count(path: Path) -> int:
    async with Journal(path, durable=False) as journal:
        return len((await journal.unfinished())[0])


async def test_a_journal_that_breaks_while_it_is_in_use_ends_its_gateway(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite3"
    await fill(path, side=256)  # more than SQLite keeps in memory
    async with Journal(path, durable=False) as journal:
        damaged = asyncio.create_task(journal.damaged())
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        with contextlib.suppress(JournalError):
            for number in range(TASKS):
                await journal.finish(f"camera.{number}", answer(number))
        with pytest.raises(JournalError, match="the next start sets it aside and rescues"):
            await asyncio.wait_for(damaged, 20)


async def test_a_journal_gives_back_the_space_of_what_it_forgets(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite3"
    async with Journal(path, durable=False, keep_answers_s=0.0) as journal:
        inputs = np.zeros((4, 3, 256, 256), np.uint8)
        for number in range(20):
            await journal.accept(replace(entry(number), inputs=inputs))
        largest = journal.size_bytes
        assert largest > 20 * inputs.nbytes
        for number in range(20):
            await journal.finish(f"camera.{number}", answer(number))
            journal.delivered(f"camera.{number}")
        assert await journal.forget() == 20
    async with Journal(path, durable=False) as journal:
        assert journal.size_bytes < largest / 10


class Clock:
    """A device that starts in 1970 and is told the time later."""

    def __init__(self) -> None:
        self.moment = Moment(100.0, "a", 100.0)

    def __call__(self) -> Moment:
        return self.moment

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.moment = self.moment.earlier(-seconds)

    def jumps(self, seconds: float) -> None:
        """Set the wall clock."""
        self.moment = replace(self.moment, unix_s=self.moment.unix_s + seconds)

    def restarts(self) -> None:
        """Start the machine again; its wall clock goes on."""
        self.moment = Moment(self.moment.unix_s, "b", 1.0)


@contextlib.asynccontextmanager
async def finished(path: Path, clock: Clock) -> AsyncIterator[Journal]:
    """A journal with one delivered answer that is kept for an hour."""
    async with Journal(path, durable=False, keep_answers_s=3600.0, clock=clock) as journal:
        await journal.accept(entry())
        await journal.finish("camera.1", answer())
        journal.delivered("camera.1")
        yield journal


@pytest.mark.parametrize("jump_s", [YEARS_S, -YEARS_S, 7200.0, -7200.0])
async def test_a_clock_that_jumps_costs_no_stored_answer_and_keeps_none_for_ever(
    jump_s: float, tmp_path: Path
) -> None:
    clock = Clock()
    async with finished(tmp_path / "journal", clock) as journal:
        clock.jumps(jump_s)
        assert await journal.forget() == 0
        assert await journal.accept(entry()) == Known(answer())
        clock.passes(3700.0)
        assert await journal.forget() == 1
        assert await journal.accept(entry()) is None


async def test_after_a_restart_of_the_machine_the_wall_clock_counts(tmp_path: Path) -> None:
    clock = Clock()
    async with finished(tmp_path / "journal", clock) as journal:
        clock.restarts()
        clock.passes(3000.0)
        assert await journal.forget() == 0
        clock.passes(700.0)
        assert await journal.forget() == 1


def test_what_has_passed_is_told_by_the_clock_of_the_machine_and_bounded() -> None:
    clock = Clock()
    since = clock()
    clock.passes(3.0)
    for jump_s in (0.0, YEARS_S, -2 * YEARS_S):
        clock.jumps(jump_s)
        assert passed_s(since, clock(), 10.0) == 3.0
    clock.jumps(YEARS_S)
    clock.restarts()
    assert passed_s(since, clock(), 10.0) == 3.0
    clock.jumps(YEARS_S)
    assert passed_s(since, clock(), 10.0) == 10.0
    clock.jumps(-3 * YEARS_S)
    assert passed_s(since, clock(), 10.0) == 0.0
    assert passed_s(Moment(1.0), Moment(5.0), 10.0) == 4.0


def test_this_machine_has_a_run_of_its_own() -> None:
    first, second = moments.now(), moments.now()
    assert first.boot == second.boot
    assert passed_s(first, second, 60.0) < 60.0


def test_a_new_journal_may_be_read_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite3"
    connection, _ = open_journal(path, durable=False, is_ours=True)
    with contextlib.closing(connection):
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {path.name + suffix: 0o600 for suffix in ("", "-wal", "-shm")}


async def test_the_gateway_tells_what_is_wrong_with_its_journal(mosquitto_url: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite3"
    await fill(path, 3)
    DAMAGES["filled with NUL"](path)
    settings = GatewaySettings(broker=mosquitto_url, journal=path)
    observer = Observer(settings, METRICS_SERVICE, METRICS_GATEWAY)
    async with observer.bus, running(serve(settings)):
        said = await observer.until(METRICS_SERVICE, lambda said: said.trouble, PATIENCE_S)
        assert f"journal {path} was damaged" in said.trouble
        await observer.until(METRICS_GATEWAY, lambda metrics: metrics.journal_bytes > 0, PATIENCE_S)
