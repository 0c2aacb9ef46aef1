"""Policies can learn once and then run as often as one likes."""

from splitplace.policies.placement import PlacementPolicy
from splitplace.policies.splitting import SplitPolicy
from splitplace.simulator import Scenario, run, train

SMALL = Scenario(hosts=4, intervals=5, rate=2, training_intervals=8)


def test_training_before_a_run_is_the_same_as_training_apart_from_it() -> None:
    learnt = train(SMALL, "mab+earliest-finish", 3)
    apart = run(SMALL, "mab+earliest-finish", 3, learnt=learnt)
    assert apart.figures() == run(SMALL, "mab+earliest-finish", 3).figures()


def test_learnt_state_changes_decisions() -> None:
    untrained = run(SMALL.model_copy(update={"training_intervals": 0}), "mab+earliest-finish", 3)
    assert untrained.figures() != run(SMALL, "mab+earliest-finish", 3).figures()


def test_training_can_be_watched() -> None:
    epsilons: list[object] = []

    def watch(split: SplitPolicy, _: PlacementPolicy, __: int) -> None:
        epsilons.append(split.state()["epsilon"])

    train(SMALL, "mab+earliest-finish", 3, watch=watch)
    assert len(epsilons) == 8
    assert epsilons[-1] != epsilons[0]
