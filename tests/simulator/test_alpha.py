"""The weight of energy reaches the placement that learns from it."""

from splitplace.simulator import Scenario, train

SMALL = Scenario(profile="paper-bzip2", hosts=4, rate=8, training_intervals=14)


def test_another_weight_of_energy_teaches_the_surrogate_something_else() -> None:
    time_only, energy_only = (
        train(SMALL.model_copy(update={"alpha": alpha}), "semantic+daso", 2).placement for alpha in (0.0, 1.0)
    )
    assert time_only != energy_only
    assert time_only == train(SMALL.model_copy(update={"alpha": 0.0}), "semantic+daso", 2).placement
