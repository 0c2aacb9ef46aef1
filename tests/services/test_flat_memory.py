"""What handled 20,000 tasks holds no more than after 2,500: all that is kept is bounded, and full early."""

import pytest

from splitplace.policies.ended import EndedTasks
from splitplace.policies.placement import placement_policy
from splitplace.policies.splitting import SplitName, split_policy
from splitplace.services.placer.core import PlacerCore
from splitplace.services.splitter.core import SplitterCore
from tests.support.examples import all_of, node, snapshot, three_ways
from tests.support.held import FEW, MANY, assert_flat
from tests.support.messages import accepted, decided, finished, finished_after

APP = three_ways(image_ms=10)
WHOLE = APP.model_copy(update={"variants": APP.variants[:1]})
PERIOD_MS = 125.0
"""Eight tasks a second."""
SOME, MORE = 300, 3000
"""Enough where one task a second comes and time alone bounds what is kept."""


def key(number: int) -> str:
    return f"camera-{number % 7}.{number}.{number:08x}"


def splitter_flat(
    policy: SplitName, period_ms: float, *, ends: bool = True, few: int = FEW, many: int = MANY
) -> None:
    splitter = SplitterCore(split_policy(policy, seed=1), placement_policy("earliest-finish"))
    splitter.add_applications([WHOLE])

    def handle(number: int) -> None:
        now_ms = period_ms * number
        if number % 20 == 0:
            splitter.cluster(snapshot(node("a", loaded=all_of(APP))), now_ms)
        (decision,) = splitter.accepted(accepted(key(number), deadline_ms=30_000.0, grace_ms=500.0), now_ms)
        if ends:
            splitter.finished(finished_after(decision, 60.0), now_ms + 60.0)

    assert_flat(splitter, handle, few=few, many=many)


def test_a_splitter_is_flat() -> None:
    splitter_flat("expected-reward", PERIOD_MS)


@pytest.mark.parametrize("policy", ["mab", "gillis", "linucb", "thompson"])
def test_a_splitter_is_flat_with_every_policy_that_learns(policy: SplitName) -> None:
    splitter_flat(policy, 1000.0, few=SOME, many=MORE)


def test_a_splitter_forgets_tasks_whose_end_it_never_hears() -> None:
    splitter_flat("rule", 1000.0, ends=False, few=SOME, many=MORE)


@pytest.mark.parametrize("ends", [True, False], ids=["its end is heard", "its end is never heard"])
def test_a_placer_is_flat_also_if_no_interval_ever_ends(*, ends: bool) -> None:
    placer = PlacerCore(placement_policy("earliest-finish"))
    placer.add_application(WHOLE)

    def handle(number: int) -> None:
        now_ms = 1000.0 * number
        if number % 20 == 0:
            placer.cluster(snapshot(node("a", loaded=all_of(APP))), now_ms)
        placer.place(decided(key(number), grace_ms=500.0), now_ms)
        if ends:
            placer.finished(finished(key(number)), now_ms + 60.0)

    assert_flat(placer, handle, few=SOME, many=MORE)


def test_an_ended_task_is_remembered_for_its_time_with_its_last_attempt() -> None:
    ended = EndedTasks(keep_ms=1000.0, most=2)
    ended.add("a", 3, 0.0)
    ended.add("a", 2, 100.0)
    assert (ended.attempt("a"), ended.attempt("b")) == (3, 0)
    ended.forget(1099.0)
    assert "a" in ended
    ended.forget(1100.0)
    assert "a" not in ended
    for number, name in enumerate("abc"):
        ended.add(name, 1, 2000.0 + number)
    assert [name in ended for name in "abc"] == [False, True, True]
