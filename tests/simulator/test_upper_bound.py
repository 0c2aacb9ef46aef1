"""No policy earns more than the bound, whatever it may choose."""

import pytest

from splitplace.simulator import Scenario, run
from splitplace.simulator.upper_bound import highest

EVERY_ARM = ("whole", "layer", "semantic", "compressed")


@pytest.mark.parametrize("arms", [None, EVERY_ARM])
@pytest.mark.parametrize("policy", ["oracle+earliest-finish", "expected-reward+daso", "layer+exact"])
def test_no_policy_earns_more_than_the_bound(arms: tuple[str, ...] | None, policy: str) -> None:
    scenario = Scenario(intervals=4, hosts=10, rate=1.0, drain_intervals=30, rules="paper", arms=arms)
    result = run(scenario, policy, seed=3)
    assert result.tasks.unfinished == 0
    assert result.reward is not None
    bound = highest(scenario, seed=3)["reward"]
    assert isinstance(bound, float)
    assert result.reward <= bound + 1e-9


def test_an_idle_cluster_of_fast_hosts_reaches_the_bound() -> None:
    scenario = Scenario(intervals=2, rate=1.0, drain_intervals=30, rules="paper", arms=("semantic",))
    assert run(scenario, "semantic+exact", seed=1).reward == pytest.approx(
        highest(scenario, seed=1)["reward"]
    )


def test_slow_hosts_lower_the_bound() -> None:
    usual, slow = (
        highest(Scenario(intervals=5, arms=("layer",), compute_factor=factor), 0) for factor in (1.0, 0.2)
    )
    assert usual["reward"] > slow["reward"]  # type: ignore[operator]


def test_a_fragment_that_no_host_can_hold_earns_nothing() -> None:
    assert highest(Scenario(intervals=2, memory_factor=1e-6), 0)["reward"] == 0.0
