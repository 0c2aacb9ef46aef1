import pytest

from splitplace.messages.cluster import LEAST_BANDWIDTH, MOST_BANDWIDTH, ClusterState
from splitplace.simulator.monitor import Monitor
from splitplace.simulator.world import Surroundings, World
from tests.simulator.worlds import SCORE, fragment, host, job, world


def test_what_is_said_of_a_busy_a_slowed_and_a_dead_host_is_a_message_that_live_services_accept() -> None:
    small = world("a", "b", "c")
    chain = job([fragment("x", image_ms=50.0)])
    monitor = Monitor(small, [chain.application])
    monitor.snapshot()
    small.start("c.1", 1, chain, {"s0": "a"})
    while not small.machines["a"].processor.running:
        small.events.step()
    small.machines["b"].processor.set_score(SCORE / 2)
    monitor.mark_dead("c")

    snapshot = monitor.snapshot()

    assert ClusterState.model_validate_json(snapshot.model_dump_json()) == snapshot
    busy, slowed, dead = snapshot.nodes
    assert busy.queue_ms > 0
    assert busy.queue_length == 1
    assert [timing.milliseconds_per_image for timing in slowed.timings] == [100.0]
    assert not dead.online


def test_the_brokers_link_is_told_on_demand_and_within_what_a_message_may_say() -> None:
    application = job([fragment("x")]).application
    for factor, told in [(0.5, 6.0), (1e-9, LEAST_BANDWIDTH), (1e9, MOST_BANDWIDTH)]:
        small = World([("a", host())], Surroundings(12.0, network_factor=factor))
        assert Monitor(small, [application]).snapshot().broker_megabytes_per_second is None
        told_of = Monitor(small, [application], tells_broker=True).snapshot()
        assert told_of.broker_megabytes_per_second == pytest.approx(told)


def test_nothing_is_said_anew_of_a_host_where_nothing_happened() -> None:
    still = world("a")
    monitor = Monitor(still, [job([fragment("x")]).application])
    assert monitor.snapshot().nodes[0] is monitor.snapshot().nodes[0]
