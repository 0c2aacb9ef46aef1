from dataclasses import replace

from splitplace.messages.cluster import ClusterState
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


def test_the_brokers_link_is_told_where_all_tensors_cross_it() -> None:
    application = job([fragment("x")]).application
    apart = Surroundings(12.0, network_factor=0.5)
    for around, told in [(apart, None), (replace(apart, through_broker=True), 6.0)]:
        monitor = Monitor(World([("a", host())], around), [application])
        assert monitor.snapshot().broker_megabytes_per_second == told


def test_nothing_is_said_anew_of_a_host_where_nothing_happened() -> None:
    still = world("a")
    monitor = Monitor(still, [job([fragment("x")]).application])
    assert monitor.snapshot().nodes[0] is monitor.snapshot().nodes[0]
