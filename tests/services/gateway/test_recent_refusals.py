"""Copies of a task that was just refused are refused alike; a task that is tried again is new."""

import pytest

from splitplace.services.gateway import recent_refusals
from splitplace.services.gateway.recent_refusals import COPIES_WITHIN_MS, RecentRefusals

TASK = ("camera", "1", "content")


@pytest.fixture
def refusals() -> RecentRefusals:
    made = RecentRefusals()
    made.add(TASK, "overloaded", "too much", 1000.0)
    return made


@pytest.mark.parametrize("arrived_ms", [900.0, 1000.0, 1000.0 + COPIES_WITHIN_MS])
def test_a_copy_hears_the_same_words(refusals: RecentRefusals, arrived_ms: float) -> None:
    told = refusals.find(TASK, arrived_ms)
    assert told is not None
    assert (told.kind, told.reason) == ("overloaded", "too much")


def test_a_sender_that_tries_again_later_is_heard(refusals: RecentRefusals) -> None:
    assert refusals.find(TASK, 1001.0 + COPIES_WITHIN_MS) is None
    assert len(refusals) == 0


def test_what_the_broker_delivers_once_more_is_a_copy_however_late(refusals: RecentRefusals) -> None:
    told = refusals.find(TASK, 60_000.0, redelivered=True)
    assert told is not None
    assert told.reason == "too much"
    assert refusals.find(("camera", "2", "content"), 60_000.0, redelivered=True) is None


def test_other_content_another_task_and_another_sender_are_no_copies(refusals: RecentRefusals) -> None:
    for other in (("camera", "1", "other"), ("camera", "2", "content"), ("door", "1", "content")):
        assert refusals.find(other, 1000.0) is None


def test_copies_do_not_begin_the_time_anew(refusals: RecentRefusals) -> None:
    refusals.add(TASK, "overloaded", "still too much", 1500.0)
    assert refusals.find(TASK, 1001.0 + COPIES_WITHIN_MS) is None


def test_a_later_refusal_is_remembered_in_its_place(refusals: RecentRefusals) -> None:
    refusals.add(TASK, "quota", "wait", 9000.0)
    told = refusals.find(TASK, 9000.0)
    assert told is not None
    assert told.reason == "wait"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_refusals, "MAX_REMEMBERED", 3)
    made = RecentRefusals()
    for number in range(5):
        made.add(("camera", str(number), "content"), "overloaded", "too much", 0.0)
    assert len(made) == 3
    assert made.find(("camera", "0", "content"), 0.0) is None
    assert made.find(("camera", "4", "content"), 0.0) is not None
