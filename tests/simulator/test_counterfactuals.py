"""What would happen is what does happen, where nothing arrives in between."""

from math import inf
from random import Random

import pytest
from typing_extensions import override

from splitplace.messages.placing import ForeseenPlacement
from splitplace.messages.task import TaskFinished
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import Infeasible, Placement, PlacementRequest, placement_policy
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.prediction import Job
from splitplace.policies.splitting import split_policy
from splitplace.simulator import Scenario
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.counterfactuals import played_out
from splitplace.simulator.hosts import machines
from splitplace.simulator.result import TaskRecord
from splitplace.simulator.simulation import Simulation
from splitplace.simulator.workload import restricted
from splitplace.simulator.world import Surroundings, World


class Foreseeing(EarliestFinish):
    """Plays out each of its placements, and a random one, before it places."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation: Simulation | None = None
        self.foreseen: dict[str, tuple[TaskFinished, TaskFinished]] = {}
        self._random = placement_policy("random", seed=3)

    @override
    def confirm(
        self, request: PlacementRequest, foreseen: ForeseenPlacement, cluster: ClusterView, now_ms: float
    ) -> Placement | None:
        """Place each task anew, so that each is played out."""
        return None

    @override
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        found = super().place(request, cluster, now_ms)
        other = self._random.place(request, cluster, now_ms)
        assert isinstance(found, Placement)
        assert isinstance(other, Placement)
        assert self.simulation is not None
        mine, its = (
            played_out(self.simulation, request, one.nodes, name=f"{request.task}-{name}")
            for one, name in ((found, "mine"), (other, "other"))
        )
        self.foreseen[request.task] = mine, its
        return found


def play(policy: EarliestFinish, *tasks: Arrival) -> dict[str, TaskRecord]:
    """Always split by layers, on four hosts."""
    scenario = Scenario(intervals=60, mobility=False)
    simulation = Simulation(
        scenario,
        restricted(scenario.workload(), {"layer"}),
        World(machines("azure50").expand(4), Surroundings(500.0)),
        tasks,
        split=split_policy("layer"),
        placement=policy,
        random=Random(0),
    )
    if isinstance(policy, Foreseeing):
        policy.simulation = simulation
    simulation.run()
    return {record.task: record for record in simulation.records}


def every(gap_ms: float, count: int) -> list[Arrival]:
    return [Arrival(f"sim.{number}", gap_ms * number, "mnist", 400, 3_000_000.0) for number in range(count)]


def test_what_is_played_out_of_the_last_task_is_what_happens() -> None:
    policy = Foreseeing()
    last = play(policy, *every(100_000.0, 4))["sim.3"]
    mine, other = policy.foreseen["sim.3"]
    assert mine.response_ms == pytest.approx(last.response_ms, abs=20)  # but for messages under way
    assert (mine.task, mine.variant, mine.on_time) == ("sim.3-mine", "layer", last.on_time)
    assert other.response_ms > 1.05 * mine.response_ms


def test_playing_out_changes_nothing() -> None:
    tasks = every(50_000.0, 5)
    assert play(Foreseeing(), *tasks) == play(EarliestFinish(), *tasks)


def test_what_arrives_later_is_not_foreseen() -> None:
    policy = Foreseeing()
    records = play(policy, *every(1_000.0, 12))
    foreseen = [policy.foreseen[task][0].response_ms for task in records]
    realised = [record.response_ms or inf for record in records.values()]
    assert sum(foreseen) < 0.9 * sum(realised)


def test_a_task_that_is_over_cannot_be_played_out() -> None:
    policy = Foreseeing()
    play(policy, *every(1_000.0, 1))
    assert policy.simulation is not None
    application = policy.simulation.applications["mnist"]
    request = PlacementRequest("sim.0", Job(application, application.variant("layer"), 1), 0.0)
    with pytest.raises(KeyError, match=r"sim\.0"):
        played_out(policy.simulation, request, {}, name="sim.0-again")
