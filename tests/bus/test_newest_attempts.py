"""The backlog of a service: what is not wanted any more is never looked at."""

import asyncio

import pytest

from splitplace.bus import backlog
from splitplace.bus.backlog import Backlog
from splitplace.messages.task import TaskAccepted


def accepted(
    task: str, attempt: int = 1, slack_ms: float = 1000.0, grace_ms: float | None = 500.0
) -> TaskAccepted:
    return TaskAccepted(
        task=task,
        attempt=attempt,
        application="tiny",
        batch=1,
        input_bytes=1,
        deadline_ms=1000.0,
        slack_ms=slack_ms,
        grace_ms=grace_ms,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(backlog, "now_ms", lambda: now[0])
    return now


class Handled:
    """A backlog, and what it has handed on."""

    def __init__(self) -> None:
        self.got: list[tuple[TaskAccepted, float]] = []
        self.waiting: Backlog[TaskAccepted] = Backlog(lambda message, left: self.got.append((message, left)))

    async def all(self) -> list[tuple[TaskAccepted, float]]:
        for _ in range(len(self.waiting)):
            await asyncio.sleep(0)
        return self.got


async def test_messages_come_in_order_with_the_slack_that_is_left(clock: list[float]) -> None:
    handled = Handled()
    for name in ("c.1", "c.2", "c.3"):
        handled.waiting.put(accepted(name))
    clock[0] = 300.0
    assert [(message.task, left_ms) for message, left_ms in await handled.all()] == [
        ("c.1", 700.0),
        ("c.2", 700.0),
        ("c.3", 700.0),
    ]


async def test_others_get_a_turn_between_two_messages() -> None:
    handled = Handled()
    handled.waiting.put(accepted("c.1"))
    handled.waiting.put(accepted("c.2"))
    assert not handled.got
    await asyncio.sleep(0)
    assert [message.task for message, _ in handled.got] == ["c.1"]
    handled.waiting.drop("c.2")
    await asyncio.sleep(0)
    assert [message.task for message, _ in handled.got] == ["c.1"]


async def test_of_each_task_only_the_newest_attempt_is_seen() -> None:
    handled = Handled()
    for name, attempt in (("c.1", 1), ("c.2", 1), ("c.1", 2), ("c.1", 1)):
        handled.waiting.put(accepted(name, attempt))
    got = await handled.all()
    assert [(message.task, message.attempt) for message, _ in got] == [("c.2", 1), ("c.1", 2)]
    assert (len(handled.waiting), handled.waiting.dropped) == (0, 2)


async def test_a_task_that_ended_and_one_that_is_too_late_are_never_seen(clock: list[float]) -> None:
    handled = Handled()
    handled.waiting.put(accepted("c.ended"))
    handled.waiting.put(accepted("c.late", slack_ms=10.0))
    handled.waiting.put(accepted("c.patient", slack_ms=10.0, grace_ms=None))
    handled.waiting.drop("c.ended")
    clock[0] = 600.0
    ((message, left_ms),) = await handled.all()
    assert (message.task, left_ms) == ("c.patient", -590.0)
    assert handled.waiting.dropped == 2
