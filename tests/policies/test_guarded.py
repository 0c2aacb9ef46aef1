"""A surrogate places most tasks only where it earns more than the policy beside it."""

from random import Random

import numpy as np
import pytest

from splitplace.messages.task import TaskFinished
from splitplace.policies.placement import Placement, PlacementRequest
from splitplace.policies.placement.daso import SurrogatePlacement
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.placement.guarded import RARE_SHARE, TRIED_SHARE, Guarded
from splitplace.policies.placement.weights import pretrained_weights
from splitplace.policies.state import StateError
from tests.support.examples import all_of, cluster, job, node, three_ways
from tests.support.split_examples import context, outcome

APP = three_ways(image_ms=10)
VIEW = cluster(*(node(name, loaded=all_of(APP)) for name in "abc"))


def guarded(seed: int = 0) -> Guarded:
    surrogate = SurrogatePlacement(
        pretrained_weights("daso"), np.random.default_rng(seed), decision_aware=True, fine_tuning=False
    )
    return Guarded(surrogate, EarliestFinish(), Random(seed))


def ended(task: str, *, on_time: bool) -> TaskFinished:
    asked = context(task=task)
    return outcome(asked, "layer", 100.0 if on_time else 2000.0)


def serve(policy: Guarded, tasks: int, *, surrogate_in_time: float, other_in_time: float) -> None:
    """Place tasks, which are in time as often as is said of who placed them."""
    random = Random(1)
    for number in range(tasks):
        task = f"c.{number}"
        placed = policy.place(PlacementRequest(task, job(APP, "whole", 4), 5.0, 800.0), VIEW, 0.0)
        assert isinstance(placed, Placement)
        in_time = surrogate_in_time if policy._pending[task] else other_in_time
        policy.learn(ended(task, on_time=random.random() < in_time))


def test_it_begins_with_the_other_policy_and_tries_the_surrogate() -> None:
    assert guarded().surrogate_share == TRIED_SHARE


@pytest.mark.parametrize(
    ("surrogate", "other", "share"),
    [(1.0, 0.5, 1 - TRIED_SHARE), (0.5, 1.0, RARE_SHARE), (1.0, 1.0, TRIED_SHARE)],
)
def test_most_tasks_are_placed_by_who_earns_more_here(surrogate: float, other: float, share: float) -> None:
    policy = guarded()
    serve(policy, 800, surrogate_in_time=surrogate, other_in_time=other)
    assert policy.surrogate_share == share


def test_the_record_outlasts_a_restart() -> None:
    policy, again = guarded(), guarded()
    serve(policy, 800, surrogate_in_time=1.0, other_in_time=0.5)
    again.restore(policy.state())
    assert again.surrogate_share == policy.surrogate_share
    with pytest.raises(StateError):
        again.restore({"by_other": 1})
