"""The journal: what it has said it has written is there after a restart."""

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitplace.messages.task import Answer
from splitplace.services.gateway.journal import Journal, JournalError, Known
from splitplace.services.gateway.journal_thread import JournalThread
from tests.services.gateway.stimuli import entry
from tests.support.waiting import until


def answer(status: str = "answered", number: int = 1) -> Answer:
    return Answer.model_validate(
        {
            "task": str(number),
            "client": "camera",
            "application": "digits",
            "status": status,
            "reason": "because",
        }
    )


JOURNAL_0_1 = f"""
CREATE TABLE tasks (
    key TEXT PRIMARY KEY, client TEXT NOT NULL, task TEXT NOT NULL, application TEXT NOT NULL,
    deadline_ms REAL NOT NULL, accepted_unix_s REAL NOT NULL, attempt INTEGER NOT NULL, dtype TEXT NOT NULL,
    shape TEXT NOT NULL, inputs BLOB, labels TEXT, response_topic TEXT, correlation_data BLOB,
    packed INTEGER NOT NULL, answer TEXT, delivered INTEGER NOT NULL DEFAULT 0, finished_unix_s REAL
) STRICT;
INSERT INTO tasks VALUES ('camera.1', 'camera', '1', 'digits', 250.0, 1e9, 1, 'uint8', '2,2', x'01020304',
    NULL, NULL, NULL, 0, NULL, 0, NULL);
INSERT INTO tasks VALUES ('camera.2', 'camera', '2', 'digits', 250.0, 1e9, 1, 'uint8', '2,2', NULL,
    NULL, NULL, NULL, 0, '{answer(number=2).model_dump_json(exclude={"warnings"})}', 0, 1e9);
"""
"""What version 0.1 has left: an unfinished task and an undelivered answer."""


async def test_an_accepted_task_is_there_after_a_restart_with_everything_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.sqlite3"
    async with Journal(path, durable=True) as journal:
        assert await journal.accept(entry(2, labels=None)) is None
        assert await journal.accept(entry()) is None
        await journal.begin_attempt("camera.1", 3)
    async with Journal(path, durable=True) as journal:
        (first, second), damaged = await journal.unfinished()
    assert damaged == ()
    assert (first.key, first.attempt, first.labels, first.reply) == ("camera.1", 3, (3, 1), entry().reply)
    assert np.array_equal(first.inputs, entry().inputs)
    assert (second.key, second.labels) == ("camera.2", None)


async def test_a_task_id_that_was_used_before_is_known_with_its_answer(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", durable=False) as journal:
        await journal.accept(entry())
        assert await journal.accept(entry()) == Known(None)
        await journal.finish("camera.1", answer())
        assert await journal.accept(entry()) == Known(answer())


async def test_the_first_terminal_answer_wins(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", durable=False) as journal:
        await journal.accept(entry())
        assert await journal.finish("camera.1", answer("expired")) is True
        assert await journal.finish("camera.1", answer("answered")) is False
        assert await journal.accept(entry()) == Known(answer("expired"))


async def test_an_answer_is_undelivered_until_the_broker_had_it(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", durable=False) as journal:
        await journal.accept(entry())
        await journal.finish("camera.1", answer())
    async with Journal(tmp_path / "journal", durable=False) as journal:
        (left,), _ = await journal.undelivered()
        assert (left.answer, left.reply) == (answer(), entry().reply)
        assert await journal.unfinished() == ((), ())
        journal.delivered("camera.1")
        assert await journal.undelivered() == ((), ())


def is_delivered(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("SELECT delivered FROM tasks").fetchone()[0])


async def test_a_delivery_is_written_soon_although_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with Journal(path, durable=False) as journal:
        await journal.accept(entry())
        await journal.finish("camera.1", answer())
        journal.delivered("camera.1")
        await until(lambda: is_delivered(path))


async def test_a_delivery_is_written_before_the_journal_closes(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with Journal(path, durable=False) as journal:
        await journal.accept(entry())
        await journal.finish("camera.1", answer())
        journal.delivered("camera.1")
    assert is_delivered(path)


async def test_a_delivery_whose_transaction_fails_is_written_later(tmp_path: Path) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")  # as SQLite does where the disk is full
        raise sqlite3.OperationalError("database or disk is full")

    thread = JournalThread(tmp_path / "journal", durable=False)
    done: list[int] = []
    await thread.start()
    try:
        thread.do_with_next(lambda _: done.append(1))
        with pytest.raises(JournalError, match="full"):
            await thread.do(fail)
        await until(lambda: len(done) == 2 and not thread.failure)
    finally:
        await thread.stop()


async def test_only_old_delivered_answers_are_forgotten(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", durable=False) as journal:
        for number in (1, 2, 3):
            await journal.accept(entry(number))
        await journal.finish("camera.1", answer())
        await journal.finish("camera.2", answer(number=2))
        journal.delivered("camera.1")
        assert await journal.forget() == 0
    async with Journal(tmp_path / "journal", durable=False, keep_answers_s=0.0) as journal:
        assert await journal.forget() == 1
        assert len((await journal.undelivered())[0]) == 1
        assert len((await journal.unfinished())[0]) == 1


async def test_writes_that_come_together_share_a_commit(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", durable=False) as journal:
        results = await asyncio.gather(*(journal.accept(entry(number)) for number in range(200)))
        assert results == [None] * 200
        assert len((await journal.unfinished())[0]) == 200


async def test_a_journal_that_cannot_be_written_says_what_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JournalError, match="is the folder writable"):
        async with Journal(tmp_path / "file" / "journal", durable=False):
            pass


async def test_a_second_gateway_on_the_same_journal_is_refused_and_told_why(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", durable=False) as journal:
        with pytest.raises(JournalError, match="another gateway uses it; give each system a --state-dir"):
            async with Journal(tmp_path / "journal", durable=False):
                pass
        assert await journal.accept(entry()) is None
    async with Journal(tmp_path / "journal", durable=False) as journal:
        assert len((await journal.unfinished())[0]) == 1


async def test_a_write_that_nobody_waits_for_any_more_does_not_end_the_journal(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", durable=False) as journal:
        for _ in range(20):
            writing = asyncio.ensure_future(journal.accept(entry()))
            await asyncio.sleep(0)
            writing.cancel()
        known = await journal.accept(entry())
        assert known is None or known.answer is None


async def test_a_task_id_with_other_inputs_is_another_task_once_the_first_has_ended(tmp_path: Path) -> None:
    first = replace(entry(), key="camera.1.aaaaaaaa", content="one")
    other = replace(entry(), key="camera.1.bbbbbbbb", content="two")
    async with Journal(tmp_path / "journal", durable=False) as journal:
        assert await journal.accept(first) is None
        assert await journal.accept(other) == Known(None, is_other=True)
        await journal.finish(first.key, answer("expired"))
        assert await journal.accept(other) is None
        await journal.finish(other.key, answer("failed"))
        assert await journal.accept(first) == Known(answer("expired"))
        assert await journal.known("camera", "1", "two") == Known(answer("failed"))
        assert await journal.known("camera", "1", "three") is None


async def test_a_task_id_is_new_again_when_its_answer_is_no_longer_kept(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", durable=False, keep_answers_s=0.0) as journal:
        await journal.accept(replace(entry(), key="camera.1.aaaaaaaa"))
        await journal.finish("camera.1.aaaaaaaa", answer())
        assert await journal.accept(entry()) == Known(answer())
        journal.delivered("camera.1.aaaaaaaa")
        assert await journal.accept(replace(entry(), key="camera.1.bbbbbbbb")) is None


async def test_a_journal_of_the_first_version_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(JOURNAL_0_1)
    async with Journal(path, durable=False) as journal:
        ((unfinished,), damaged), ((undelivered,), _) = (
            await journal.unfinished(),
            await journal.undelivered(),
        )
        assert damaged == ()
        assert (unfinished.key, unfinished.inputs.shape, unfinished.content) == ("camera.1", (2, 2), None)
        assert (undelivered.key, undelivered.answer) == ("camera.2", answer(number=2))
        assert await journal.accept(entry(2)) == Known(answer(number=2))
        assert await journal.accept(entry(3)) is None


async def test_a_row_that_cannot_be_read_is_put_aside_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with Journal(path, durable=False) as journal:
        for number in range(1, 6):
            await journal.accept(entry(number))
        for number in (4, 5):
            await journal.finish(f"camera.{number}", answer(number=number))
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE tasks SET inputs = x'00' WHERE key = 'camera.1'")
        database.execute("UPDATE tasks SET deadline_ms = 1e300 WHERE key = 'camera.2'")
        database.execute("UPDATE tasks SET answer = '{}' WHERE key = 'camera.4'")
        database.commit()
    async with Journal(path, durable=False, keep_answers_s=-1.0) as journal:
        (left,), damaged = await journal.unfinished()
        assert (left.key, [row.key for row in damaged]) == ("camera.3", ["camera.1", "camera.2"])
        (left_answer,), (broken,) = await journal.undelivered()
        assert (left_answer.key, broken.key, broken.reply) == ("camera.5", "camera.4", entry().reply)
        for row in (*damaged, broken):
            journal.delivered(row.key)
        assert (await journal.unfinished())[1] == ()
        assert (await journal.undelivered())[1] == ()
        await journal.forget()
    with contextlib.closing(sqlite3.connect(path)) as database:
        kept = database.execute("SELECT key FROM tasks WHERE quarantined IS NOT NULL ORDER BY key").fetchall()
    assert kept == [("camera.1",), ("camera.2",), ("camera.4",)]


async def test_a_stored_answer_that_cannot_be_read_costs_nobody_else_anything(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with Journal(path, durable=False) as journal:
        await journal.accept(entry())
        await journal.finish("camera.1", answer())
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE tasks SET answer = '{}'")
        database.commit()
    async with Journal(path, durable=False) as journal:
        again = replace(entry(), key="camera.1.aaaaaaaa")
        others = [entry(number) for number in range(2, 22)]
        assert await asyncio.gather(*(journal.accept(task) for task in (again, *others))) == [None] * 21


async def test_a_write_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    twice = [replace(entry(number), content=str(number)) for number in (1, 2)]
    clashing = replace(entry(3), key="camera.1")
    async with Journal(tmp_path / "journal", durable=False) as journal:
        results = await asyncio.gather(
            *(journal.accept(task) for task in (*twice, clashing, entry(4))), return_exceptions=True
        )
        assert [type(result) for result in results] == [type(None), type(None), JournalError, type(None)]
        assert len((await journal.unfinished())[0]) == 3


async def test_only_an_id_that_was_never_used_is_called_new(tmp_path: Path) -> None:
    async with Journal(tmp_path / "a journal #1", durable=False) as journal:
        assert journal.is_new("camera", "1")
        writing = asyncio.create_task(journal.accept(entry()))
        await asyncio.sleep(0)
        assert not journal.is_new("camera", "1")  # written or not
        await writing
        assert not journal.is_new("camera", "1")
        assert journal.is_new("camera", "2")
    assert not journal.is_new("camera", "2")  # closed: nobody knows
