"""Estimates from logs of a synthetic bandit agree with values that are known."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import pytest

from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.policies.replay import ReplayedTask, logged_context, replay
from splitplace.policies.replay_estimates import Interval, NoSupportError, estimate
from splitplace.policies.splitting import Decision, SplitContext, split_policy
from splitplace.policies.splitting.interface import StatelessSplit
from tests.support.split_examples import LAYER, context, outcome

Event = TaskDecided | TaskFinished
TASKS = 600
LAYER_SHARE = 0.7
"""Share of the layer splits that the logging policy chooses."""


class Chooses(StatelessSplit):
    """The policy under test: a fixed function of the context."""

    name = "chooses"

    def __init__(self, choice: Callable[[SplitContext], str | None]) -> None:
        self._choice = choice

    def decide(self, context: SplitContext) -> Decision:
        return Decision(self._choice(context), "as told")


def by_slack(context: SplitContext) -> str:
    return "layer" if context.slack_ms >= 100 else "semantic"


def chance(slack_ms: float, variant: str) -> float:
    """That a task is answered in time: the layer split needs slack, the semantic one does not."""
    return {"layer": 0.9 if slack_ms >= 100 else 0.1, "semantic": 0.6}[variant]


VALUE_BY_SLACK = (0.9 + 0.9) / 2 / 2 + (0.6 + 0.8) / 2 / 2
"""Both slacks are equally likely; a task in time earns (1 + accuracy) / 2, else accuracy / 2."""
VALUE_OF_THE_LOG = LAYER_SHARE * (0.5 + 0.9) / 2 + (1 - LAYER_SHARE) * (0.6 + 0.8) / 2


def decided(asked: SplitContext, variant: str | None, propensity: float) -> TaskDecided:
    return TaskDecided(
        task=asked.task,
        attempt=asked.attempt,
        application=asked.application,
        batch=asked.batch,
        slack_ms=asked.slack_ms,
        policy="logging",
        variant=variant,
        reason="",
        predicted_ms=None,
        alternatives=tuple(arm.estimate() for arm in asked.arms),
        deadline_ms=asked.deadline_ms,
        load_ms=asked.load_ms,
        link_megabytes_per_second=asked.link_megabytes_per_second,
        propensity=propensity,
    )


def log(seed: int, tasks: int = TASKS) -> Iterator[Event]:
    """Draws layer with a known probability, whatever the slack."""
    random = Random(seed)
    for number in range(tasks):
        asked = context(task=f"c.t{number}", deadline_ms=random.choice([50.0, 200.0]))
        variant = "layer" if random.random() < LAYER_SHARE else "semantic"
        on_time = random.random() < chance(asked.slack_ms, variant)
        yield decided(asked, variant, LAYER_SHARE if variant == "layer" else 1 - LAYER_SHARE)
        yield outcome(asked, variant, asked.deadline_ms / 2 if on_time else asked.deadline_ms * 2)


def holds(interval: Interval | None, value: float) -> bool:
    return interval is not None and interval.low <= value <= interval.high


def test_both_estimates_find_the_value_of_a_policy_that_never_ruled() -> None:
    found = estimate(replay(log(1, 4000), Chooses(by_slack)))
    assert found.self_normalised is not None
    assert found.self_normalised.value == pytest.approx(VALUE_BY_SLACK, abs=0.02)
    assert found.doubly_robust.value == pytest.approx(VALUE_BY_SLACK, abs=0.02)
    assert found.logged.value == pytest.approx(VALUE_OF_THE_LOG, abs=0.02)
    assert found.gain.value == pytest.approx(VALUE_BY_SLACK - VALUE_OF_THE_LOG, abs=0.02)
    assert found.gain.low > 0
    assert found.unsupported == 0


def test_almost_all_intervals_hold_the_value() -> None:
    found = [estimate(replay(log(seed), Chooses(by_slack)), replicates=100) for seed in range(20)]
    assert sum(holds(each.self_normalised, VALUE_BY_SLACK) for each in found) >= 17
    assert sum(holds(each.doubly_robust, VALUE_BY_SLACK) for each in found) >= 17


def test_the_doubly_robust_interval_is_the_narrower_one() -> None:
    found = estimate(replay(log(2), Chooses(by_slack)))
    assert found.self_normalised is not None
    plain = found.self_normalised.high - found.self_normalised.low
    assert found.doubly_robust.high - found.doubly_robust.low < plain


def test_the_mean_of_agreeing_tasks_alone_would_be_wrong() -> None:
    """The weights matter: the log chooses layer more often than semantic."""
    agreeing = [task.reward for task in replay(log(3, 4000), Chooses(by_slack)) if task.agrees]
    assert abs(sum(agreeing) / len(agreeing) - VALUE_BY_SLACK) > 0.025


def test_the_effective_sample_size_is_that_of_the_weights() -> None:
    tasks = replay(log(4), Chooses(lambda _: "semantic"))
    found = estimate(tasks)
    assert found.effective_tasks == pytest.approx(sum(task.logged == "semantic" for task in tasks))
    assert found.agreement == pytest.approx(found.effective_tasks / TASKS)


def test_a_log_of_certain_decisions_is_refused() -> None:
    certain = [replace(task, propensity=1.0) for task in replay(log(5), Chooses(by_slack))]
    with pytest.raises(NoSupportError, match="never draws"):
        estimate(certain)


def test_an_empty_log_is_refused() -> None:
    with pytest.raises(NoSupportError, match="no task"):
        estimate([])


def test_what_the_log_could_not_have_chosen_is_counted() -> None:
    tasks = replay(log(6), Chooses(lambda _: "layer"))
    half = [replace(task, propensity=1.0) if task.context.slack_ms >= 100 else task for task in tasks]
    found = estimate(half)
    missing = sum(task.logged == "semantic" and task.context.slack_ms >= 100 for task in tasks)
    assert found.unsupported == pytest.approx(missing / TASKS)


def test_refusing_everything_is_known_to_earn_nothing() -> None:
    found = estimate(replay(log(7), Chooses(lambda _: None)))
    assert (found.refused, found.doubly_robust.value, found.agreement) == (1.0, 0.0, 0.0)
    assert found.self_normalised == Interval(0.0, 0.0, 0.0)


def test_a_policy_that_never_agrees_has_no_estimate_by_weights() -> None:
    found = estimate(replay(log(8), Chooses(lambda _: "whole")))
    assert (found.self_normalised, found.effective_tasks) == (None, 0.0)


def test_a_logged_decision_is_asked_about_as_it_was() -> None:
    asked = context(load_ms=7.0, slack_ms=80.0)
    again = logged_context(decided(asked, "layer", 0.5))
    arms = tuple(replace(arm, foreseen_ms=None, burden_ms=arm.work_ms) for arm in asked.arms)
    assert again == replace(asked, arms=arms)
    told = replace(asked, arms=tuple(replace(arm, burden_ms=99.0) for arm in asked.arms))
    assert all(arm.burden_ms == 99.0 for arm in logged_context(decided(told, "layer", 0.5)).arms)


def test_the_first_decision_of_a_task_counts_with_its_end() -> None:
    asked = context(deadline_ms=100.0)
    again = replace(asked, attempt=2)
    ends = outcome(again, "semantic", 90.0)
    events: list[Event] = [decided(asked, "layer", 0.7), decided(again, "semantic", 0.3), ends]
    (task,) = replay(events, Chooses(by_slack))
    assert (task.logged, task.propensity, task.reward) == ("layer", 0.7, 0.9)


def test_tasks_without_decision_or_end_are_passed_over() -> None:
    first, second = context(task="c.a"), context(task="c.b")
    assert replay([outcome(first, "layer", 1.0), decided(second, "layer", 0.5)], Chooses(by_slack)) == []


def test_the_policy_learns_from_the_log_as_it_goes() -> None:
    """It finds out that the semantic split has no chance."""

    def events() -> Iterator[Event]:
        random = Random(9)
        for number in range(400):
            asked = context(task=f"c.t{number}", deadline_ms=200.0)
            variant = random.choice(["layer", "semantic"])
            yield decided(asked, variant, 0.5)
            yield outcome(asked, variant, 20.0 if variant == "layer" else 900.0, status="answered")

    choices = [task.chosen for task in replay(events(), split_policy("linucb"))]
    assert choices[0] == "semantic"
    assert choices[-50:] == ["layer"] * 50


def test_a_policy_that_would_wait_counts_as_refusing() -> None:
    asked = context(LAYER)
    events: list[Event] = [decided(asked, "layer", 0.5), outcome(asked, "layer", 10.0)]
    tasks: list[ReplayedTask] = replay(events, split_policy("semantic"))
    assert [task.chosen for task in tasks] == [None]
