"""Hosts that share a stage: what is simulated is what is predicted."""

from math import inf

import pytest

from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import Placement, PlacementRequest, placement_policy
from splitplace.policies.prediction import Job, PlacedShare
from splitplace.simulator import Failures, Scenario, run
from splitplace.simulator.monitor import Monitor
from splitplace.simulator.outputs import result_of
from splitplace.simulator.twin import twin
from splitplace.simulator.world import Surroundings, World
from tests.simulator.worlds import fragment, host, job

SLOW = fragment("slow", image_ms=20.0)
SLOWER = fragment("slower", image_ms=30.0)
SHARED = (PlacedShare("s0", "a", 0.0, (0, 2, 4)), PlacedShare("s0", "b", 0.0, (1, 3)))
ON_C = PlacedShare("s1", "c", 0.0)


def hosts(*scores: float) -> World:
    """Hosts `a`, `b`, ... that work like nodes."""
    named = [(chr(ord("a") + index), host(score=score)) for index, score in enumerate(scores)]
    return World(named, Surroundings(1000.0, discipline="deadline"))


def through(world: World) -> dict[str, float]:
    """When each task ended."""
    ended: dict[str, float] = {}
    while world.events.next_ms < inf:
        world.events.step()
        ended |= {execution.task: world.events.now_ms for execution in world.finished}
        world.finished.clear()
    return ended


def until(world: World, time_ms: float) -> None:
    while world.events.next_ms <= time_ms:
        world.events.step()
    world.events.pass_to(time_ms)


def found(world: World, wanted: Job, replicas: int) -> Placement:
    view = ClusterView()
    view.apply(Monitor(world, [wanted.application]).snapshot(), 0.0)
    policy = placement_policy("earliest-finish", replicas=replicas)
    placement = policy.place(PlacementRequest("t", wanted, 0.0), view, 0.0)
    assert isinstance(placement, Placement)
    return placement


@pytest.mark.parametrize("chain", [True, False])
@pytest.mark.parametrize("scores", [(100.0, 100.0), (100.0, 300.0), (100.0, 100.0, 50.0, 200.0)])
def test_a_shared_task_takes_as_long_as_predicted(scores: tuple[float, ...], *, chain: bool) -> None:
    wanted = job([SLOW, SLOWER], chain=chain, batch=16, micro_batch=2)
    world = hosts(*scores)
    shared, alone = found(world, wanted, replicas=4), found(world, wanted, replicas=1)
    if len(scores) > 2:
        assert len(shared.shares) > 2
        assert shared.prediction.response_ms < alone.prediction.response_ms
    world.start("t", 1, shared.job, shared.shares)
    assert through(world)["t"] == pytest.approx(shared.prediction.response_ms, rel=0.05)


def test_one_stage_on_two_hosts_gains_in_proportion_to_their_speed() -> None:
    wanted = job([SLOW], batch=32, micro_batch=4)
    for scores, least in (((100.0, 100.0), 1.8), ((100.0, 300.0), 1.25)):
        took = []
        for replicas in (1, 2):
            world = hosts(*scores)
            placement = found(world, wanted, replicas)
            world.start("t", 1, placement.job, placement.shares)
            took.append(through(world)["t"])
        assert took[0] / took[1] > least


def test_outputs_of_replicas_meet_at_the_next_stage_and_make_one_result() -> None:
    world = hosts(100.0, 100.0, 100.0)
    execution = world.start("t", 1, job([SLOW, SLOWER], batch=10, micro_batch=2), (*SHARED, ON_C))
    assert through(world)
    result = result_of(execution)
    assert result is not None
    assert result.coverage == 1.0
    assert [(report.stage, report.node) for report in result.stages] == [
        ("s0", "a"),
        ("s0", "b"),
        ("s1", "c"),
    ]
    assert [number for number, _ in execution.runs["s1"].inputs] == [0, 1, 2, 3, 4]
    assert all(not machine.runs for machine in world.machines.values())


def test_a_dead_replica_takes_only_its_micro_batches_with_it() -> None:
    world = hosts(100.0, 100.0, 100.0)
    execution = world.start("t", 1, job([SLOW, SLOWER], batch=10, micro_batch=2), (*SHARED, ON_C))
    until(world, 60.0)
    world.fail("b")
    assert through(world) == {}
    assert execution.is_lost
    assert {number for number, _ in execution.runs["s1"].inputs} >= {0, 2, 4}
    assert execution.runs["s1"].computed == len(execution.runs["s1"].inputs) < 5
    assert result_of(execution) is None


@pytest.mark.parametrize("at_ms", [4.0, 30.0, 60.0, 110.0, 200.0])
def test_a_twin_of_shared_work_goes_on_as_the_world_does(at_ms: float) -> None:
    world = hosts(100.0, 100.0, 100.0)
    world.start("t", 1, job([SLOW, SLOWER], batch=10, micro_batch=2), (*SHARED, ON_C))
    until(world, at_ms)
    copy = twin(world)
    ahead = through(copy)
    assert ahead == pytest.approx(through(world), abs=7.5)
    assert ahead


@pytest.mark.parametrize("failures", [None, Failures(mean_intervals_between=3.0)])
def test_a_simulation_with_replicas_answers_sooner_and_loses_nothing(failures: Failures | None) -> None:
    scenario = Scenario(
        profile="store", hosts=6, intervals=10, rate=2, discipline="deadline", failures=failures, records=True
    )
    alone, shared = (
        run(scenario.model_copy(update={"replicas": replicas}), "whole+earliest-finish")
        for replicas in (1, 4)
    )
    for result in (alone, shared):
        tasks = result.tasks
        ended = tasks.answered + tasks.refused + tasks.failed + tasks.expired
        assert tasks.arrived == ended + tasks.overdue_unfinished + tasks.unfinished
    if failures is None:
        assert shared.response_intervals.mean is not None
        assert alone.response_intervals.mean is not None
        assert shared.response_intervals.mean < alone.response_intervals.mean
