from math import inf

import pytest

from splitplace.messages.cluster import ClusterState
from splitplace.policies.cluster import ClusterView
from splitplace.policies.prediction import predict
from splitplace.simulator.monitor import Monitor
from splitplace.simulator.processor import Discipline
from splitplace.simulator.twin import twin
from splitplace.simulator.world import Surroundings, World
from tests.simulator.worlds import SCORE, fragment, host, job, world

ONE = fragment("one")
TWO = fragment("two")
SLOW = fragment("slow", image_ms=100.0)


def through(world: World) -> dict[str, float]:
    """When each task ended."""
    ended = {}
    while world.events.next_ms < inf:
        world.events.step()
        for execution in world.finished:
            ended[execution.task] = world.events.now_ms
        world.finished.clear()
    return ended


def until(world: World, time_ms: float) -> None:
    while world.events.next_ms <= time_ms:
        world.events.step()
    world.events.pass_to(time_ms)


# Ten images of 1 kB over 1 MB/s take 10 ms, a hop 2.5 ms, computing 10 ms, the way back 10 ms and two hops.


def test_one_stage_is_sent_computed_and_returned() -> None:
    small = world("a")
    execution = small.start("t", 1, job([ONE]), {"s0": "a"})
    assert through(small) == {"t": 10 + 2.5 + 10 + 10 + 5}
    assert execution.critical_ms == pytest.approx((27.5, 10))
    assert execution.moved_bytes == 20_000
    assert not small.executions


RELAY_MS = 10.0
"""What passing the broker adds to a tensor of ten images between two hosts."""


def test_a_chain_goes_from_host_to_host() -> None:
    small = world("a", "b")
    execution = small.start("t", 1, job([ONE, TWO]), {"s0": "a", "s1": "b"})
    assert through(small) == {"t": 22.5 + 22.5 + RELAY_MS + 10 + 5}
    assert execution.critical_ms == pytest.approx((40 + RELAY_MS, 20))


def test_micro_batches_go_through_a_chain_as_a_pipeline() -> None:
    # First stage computes 7.5-12.5 and 12.5-17.5, the second 25-30 and 30-35; outputs leave until 40.
    small = world("a", "b")
    small.start("t", 1, job([ONE, TWO], micro_batch=5), {"s0": "a", "s1": "b"})
    assert through(small) == {"t": 45}


def test_branches_on_different_hosts_run_at_the_same_time() -> None:
    small = world("a", "b")
    small.start("t", 1, job([ONE, TWO], chain=False), {"s0": "a", "s1": "b"})
    assert through(small) == pytest.approx({"t": 37.5})


def test_branches_on_one_host_share_its_link_and_its_processor() -> None:
    small = world("a")
    small.start("t", 1, job([ONE, TWO], chain=False), {"s0": "a", "s1": "a"})
    assert through(small) == pytest.approx({"t": 20 + 2.5 + 20 + 20 + 5})


def test_the_gateways_link_is_shared_by_all() -> None:
    small = world("a", "b", broker=1.0)
    small.start("t", 1, job([ONE, TWO], chain=False), {"s0": "a", "s1": "b"})
    assert through(small) == pytest.approx({"t": 20 + 2.5 + 10 + 20 + 5})


def test_what_hosts_send_each_other_may_cross_the_broker() -> None:
    slow = World([("a", host()), ("b", host())], Surroundings(0.5, through_broker=True))
    slow.start("t", 1, job([ONE, TWO]), {"s0": "a", "s1": "b"})
    assert through(slow) == {"t": 20 + 2.5 + 10 + 20 + 2.5 + RELAY_MS + 10 + 20 + 5}


def test_latency_is_added_to_every_message() -> None:
    small = world("a", "b", latency_ms=7.0)
    small.start("t", 1, job([ONE, TWO]), {"s0": "a", "s1": "b"})
    assert through(small) == {"t": 60 + RELAY_MS + 7 + 14 + 7}


def test_a_task_may_be_more_work_than_was_measured() -> None:
    small = world("a")
    small.start("t", 1, job([ONE]), {"s0": "a"}, slowness=1.5)
    assert through(small) == {"t": 42.5}


@pytest.mark.parametrize("left", [1.0, 0.25])
@pytest.mark.parametrize("micro_batch", [3, 10])
@pytest.mark.parametrize(("discipline", "drift"), [("shared", 1.0), ("deadline", 1.0), ("deadline", 0.5)])
def test_an_undisturbed_task_takes_as_long_as_predicted(
    micro_batch: int, discipline: Discipline, drift: float, left: float
) -> None:
    """`left` is what compression leaves of what the first host sends."""
    cores = host(cores=2, together=1.5)
    small = World([("a", cores), ("b", cores)], Surroundings(1000.0, discipline=discipline))
    first = ONE.model_copy(update={"output_ratio": left})
    chain = job([first, TWO], micro_batch=micro_batch)
    view = ClusterView()
    monitor = Monitor(small, [chain.application])
    for machine in small.machines.values():
        machine.processor.set_score(SCORE * drift)
    snapshot: ClusterState = monitor.snapshot()
    view.apply(snapshot, 0.0)
    nodes = {"s0": "a", "s1": "b"}
    small.start("t", 1, chain, nodes)
    took = through(small)
    assert took == pytest.approx({"t": predict(view, chain, nodes, 0.0).response_ms})


def test_what_a_slow_host_sends_is_compressed() -> None:
    """10 kB cross the first host's link and then the second one's, 1 MB/s each; a quarter of them is left."""
    took = []
    for left in (1.0, 0.25):
        small = world("a", "b")
        first = ONE.model_copy(update={"output_ratio": left})
        small.start("t", 1, job([first, TWO]), {"s0": "a", "s1": "b"})
        took.append(through(small)["t"])
    assert took[0] - took[1] == pytest.approx(15.0, rel=0.01)


def test_micro_batches_that_fill_the_cores_of_a_node_gain_by_it() -> None:
    took = []
    for together in (1.0, 1.5):
        small = World([("a", host(cores=2, together=together))], Surroundings(1000.0, discipline="deadline"))
        small.start("t", 1, job([SLOW], micro_batch=5), {"s0": "a"})
        took.append(through(small)["t"])
    assert took[0] - took[1] == pytest.approx(1000 * (1 - 1 / 1.5), rel=0.02)


def test_a_cancelled_task_leaves_nothing_behind() -> None:
    small = world("a", "b")
    small.start("gone", 1, job([ONE, TWO]), {"s0": "a", "s1": "b"})
    until(small, 15.0)
    small.cancel("gone")
    small.cancel("unknown")
    small.start("t", 1, job([ONE]), {"s0": "a"})
    assert through(small) == {"t": 15 + 37.5}
    assert all(not machine.runs for machine in small.machines.values())


def test_a_dead_host_takes_its_stages_with_it_and_no_others() -> None:
    small = world("a", "b", "c")
    lost = small.start("lost", 1, job([ONE, TWO]), {"s0": "a", "s1": "b"})
    small.start("kept", 1, job([ONE]), {"s0": "c"})
    until(small, 15.0)
    small.fail("b")
    assert through(small) == {"kept": 37.5}
    assert {name for name, run in lost.runs.items() if run.lost} == {"s1"}
    small.recover("b")
    assert small.machines["b"].boots == 2
    assert through(small) == {}  # it comes back without what it had


def test_what_a_dead_host_had_computed_and_not_sent_is_lost_too() -> None:
    small = world("a", "b")
    execution = small.start("t", 1, job([ONE, TWO]), {"s0": "a", "s1": "b"})
    until(small, 28.0)  # s0 is computed, and its output on its way
    assert execution.runs["s0"].computed == 1
    small.fail("a")
    assert through(small) == {}
    assert not small.machines["b"].runs or execution.runs["s1"].received == 0


def test_other_branches_of_a_task_go_on_when_a_host_dies() -> None:
    small = world("a", "b")
    execution = small.start("t", 1, job([ONE, ONE], chain=False), {"s0": "a", "s1": "b"})
    until(small, 15.0)
    small.fail("b")
    assert through(small) == {}
    assert [run.arrived for run in execution.runs.values()] == [1, 0]
    assert execution.is_lost


def test_what_is_sent_to_a_dead_host_is_lost() -> None:
    small = world("a")
    small.fail("a")
    small.start("t", 1, job([ONE]), {"s0": "a"})
    assert through(small) == {}


def test_a_running_stage_moves_with_its_memory_and_its_inputs() -> None:
    # Half is computed at 17.5 ms. 100 MB of memory and 10 kB of inputs take 100,010 ms to the new host.
    small = world("a", "b")
    execution = small.start("t", 1, job([ONE]), {"s0": "a"})
    until(small, 17.5)
    assert execution.runs["s0"].remaining == pytest.approx(0.5)
    assert small.migrate("t", "s0", "b")
    assert through(small) == pytest.approx({"t": 17.5 + 100_010 + 5 + 10 + 5})
    assert execution.migrations == 1
    assert execution.runs["s0"].compute_ms == pytest.approx(10)


def test_a_stage_to_which_nothing_was_sent_moves_at_no_cost() -> None:
    small = world("a", "b", "c")
    small.start("t", 1, job([ONE, TWO]), {"s0": "a", "s1": "b"})
    until(small, 15.0)
    assert small.migrate("t", "s1", "c")
    assert through(small) == {"t": 60 + RELAY_MS}


def test_what_is_through_or_unknown_or_already_there_does_not_move() -> None:
    small = world("a", "b")
    small.start("t", 1, job([ONE, TWO]), {"s0": "a", "s1": "b"})
    until(small, 30.0)
    assert not small.migrate("t", "s0", "b")
    assert not small.migrate("t", "s1", "b")
    assert not small.migrate("t", "s1", "nowhere")
    assert not small.migrate("other", "s1", "a")


def test_a_worse_link_slows_what_crosses_it() -> None:
    small = world("a")
    small.disturb("a", 0.5, 3.0)
    small.start("t", 1, job([ONE]), {"s0": "a"})
    assert through(small) == {"t": 20 + 2.5 + 3 + 10 + 20 + 5 + 3}


@pytest.mark.parametrize("at_ms", [4.0, 15.0, 28.0, 40.0, 52.0])
def test_a_twin_goes_on_as_the_world_does(at_ms: float) -> None:
    small = world("a", "b", latency_ms=0.0)
    small.start("chain", 1, job([ONE, TWO], micro_batch=5), {"s0": "a", "s1": "b"}, due_ms=90.0)
    small.start("star", 1, job([TWO, ONE], chain=False), {"s0": "b", "s1": "a"}, slowness=1.2)
    until(small, at_ms)
    copy = twin(small)
    ahead = through(copy)
    assert copy.events.now_ms > small.events.now_ms
    real = through(small)
    assert ahead == pytest.approx(real, abs=7.5)  # messages within a hop begin it anew
    assert ahead
