"""The backlog of a service: what is not wanted any more is never looked at."""

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


async def test_messages_come_in_order_with_the_slack_that_is_left(clock: list[float]) -> None:
    waiting: Backlog[TaskAccepted] = Backlog()
    for name in ("c.1", "c.2", "c.3"):
        waiting.put(accepted(name))
    clock[0] = 300.0
    got = [await waiting.get() for _ in range(3)]
    assert [(message.task, left_ms) for message, left_ms in got] == [
        ("c.1", 700.0),
        ("c.2", 700.0),
        ("c.3", 700.0),
    ]


async def test_of_each_task_only_the_newest_attempt_is_seen() -> None:
    waiting: Backlog[TaskAccepted] = Backlog()
    for name, attempt in (("c.1", 1), ("c.2", 1), ("c.1", 2), ("c.1", 1)):
        waiting.put(accepted(name, attempt))
    got = [(await waiting.get())[0] for _ in range(2)]
    assert [(message.task, message.attempt) for message in got] == [("c.2", 1), ("c.1", 2)]
    assert (len(waiting), waiting.dropped) == (0, 2)


async def test_a_task_that_ended_and_one_that_is_too_late_are_never_seen(clock: list[float]) -> None:
    waiting: Backlog[TaskAccepted] = Backlog()
    waiting.put(accepted("c.ended"))
    waiting.put(accepted("c.late", slack_ms=10.0))
    waiting.put(accepted("c.patient", slack_ms=10.0, grace_ms=None))
    waiting.drop("c.ended")
    clock[0] = 600.0
    message, left_ms = await waiting.get()
    assert (message.task, left_ms) == ("c.patient", -590.0)
    assert waiting.dropped == 2
