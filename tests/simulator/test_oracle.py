from random import Random

import pytest

from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.splitting import Arm, SplitContext
from splitplace.simulator import Scenario
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.hosts import machines
from splitplace.simulator.oracle import Oracle, sight_into
from splitplace.simulator.result import TaskRecord
from splitplace.simulator.simulation import Simulation
from splitplace.simulator.workload import restricted
from splitplace.simulator.world import Surroundings, World


def play(*tasks: Arrival, slow: float = 1.0) -> list[TaskRecord]:
    """What the oracle makes of some tasks on four hosts."""
    scenario = Scenario(profile="paper-bzip2", intervals=30, mobility=False, work_noise=0.0, work_scale=slow)
    oracle = Oracle()
    simulation = Simulation(
        scenario,
        restricted(scenario.workload(), {"layer", "semantic"}),
        World(machines("azure50").expand(4), Surroundings(500.0)),
        tasks,
        split=oracle,
        placement=EarliestFinish(),
        random=Random(0),
    )
    oracle.look_ahead = sight_into(simulation)
    simulation.run()
    return sorted(simulation.records, key=lambda record: record.task)


def test_it_takes_the_most_accurate_variant_that_will_be_in_time() -> None:
    (long,) = play(Arrival("sim.0", 0.0, "mnist", 400, 7_500_000.0))
    (short,) = play(Arrival("sim.0", 0.0, "mnist", 400, 300_000.0))
    assert (long.variant, long.on_time) == ("layer", True)
    assert (short.variant, short.on_time) == ("semantic", True)


def test_it_sees_the_exact_moment() -> None:
    (alone,) = play(Arrival("sim.0", 0.0, "mnist", 400, 7_500_000.0))
    assert alone.response_ms is not None
    for deadline_ms, variant in ((alone.response_ms + 20, "layer"), (alone.response_ms - 20, "semantic")):
        (record,) = play(Arrival("sim.0", 0.0, "mnist", 400, deadline_ms))
        assert (record.variant, record.on_time) == (variant, True)


def test_of_variants_that_are_all_too_late_it_takes_the_most_accurate() -> None:
    (record,) = play(Arrival("sim.0", 0.0, "mnist", 400, 60_000.0), slow=5.0)
    assert (record.variant, record.on_time) == ("layer", False)


def test_it_does_not_ruin_a_task_that_runs_already() -> None:
    first = Arrival("sim.0", 0.0, "mnist", 400, 7_500_000.0)
    (alone,) = play(first)
    assert alone.response_ms is not None
    tight = Arrival("sim.0", 0.0, "mnist", 400, alone.response_ms * 1.05)
    others = [Arrival(f"sim.{n}", 1000.0 * n, "mnist", 400, 7_500_000.0) for n in range(1, 8)]
    records = play(tight, *others)
    assert (records[0].variant, records[0].on_time) == ("layer", True)


def test_without_a_world_it_says_so() -> None:
    arm = Arm("layer", "layer", 0.9, 10.0, "")
    context = SplitContext("c.t", 1, "mnist", 10, 100.0, 100.0, (arm,))
    with pytest.raises(RuntimeError, match="no world"):
        Oracle().decide(context)
