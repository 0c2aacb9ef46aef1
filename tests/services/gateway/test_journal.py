"""The journal: what it has said it has written is there after a restart."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from splitplace.messages.task import Answer
from splitplace.services.gateway.journal import Journal, JournalError, Known
from tests.services.gateway.stimuli import entry


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


async def test_an_accepted_task_is_there_after_a_restart_with_everything_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.sqlite3"
    async with Journal(path, durable=True) as journal:
        assert await journal.accept(entry(2, labels=None)) is None
        assert await journal.accept(entry()) is None
        await journal.begin_attempt("camera.1", 3)
    async with Journal(path, durable=True) as journal:
        first, second = await journal.unfinished()
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
        (left,) = await journal.undelivered()
        assert (left.answer, left.reply) == (answer(), entry().reply)
        assert await journal.unfinished() == ()
        await journal.delivered("camera.1")
        assert await journal.undelivered() == ()


async def test_only_old_delivered_answers_are_forgotten(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", durable=False) as journal:
        for number in (1, 2, 3):
            await journal.accept(entry(number))
        await journal.finish("camera.1", answer())
        await journal.finish("camera.2", answer(number=2))
        await journal.delivered("camera.1")
        assert await journal.forget(older_than_s=60.0) == 0
        assert await journal.forget(older_than_s=-1.0) == 1
        assert len(await journal.undelivered()) == 1
        assert len(await journal.unfinished()) == 1


async def test_writes_that_come_together_share_a_commit(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", durable=False) as journal:
        results = await asyncio.gather(*(journal.accept(entry(number)) for number in range(200)))
        assert results == [None] * 200
        assert len(await journal.unfinished()) == 200


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
        assert len(await journal.unfinished()) == 1


async def test_a_write_that_nobody_waits_for_any_more_does_not_end_the_journal(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal", durable=False) as journal:
        for _ in range(20):
            writing = asyncio.ensure_future(journal.accept(entry()))
            await asyncio.sleep(0)
            writing.cancel()
        known = await journal.accept(entry())
        assert known is None or known.answer is None
