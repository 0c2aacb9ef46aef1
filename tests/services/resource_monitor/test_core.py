"""Who lives, decided from messages and times alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.cluster import (
    LinkFigures,
    NodeInfo,
    NodeSpeed,
    NodeState,
    NodeStatus,
    NodeVitals,
)
from splitplace.services.resource_monitor.core import ResourceMonitorCore
from tests.support.messages import BOOTS, node_info, node_status, node_vitals

FIRST, SECOND, THIRD = BOOTS


def joined(*names: str) -> ResourceMonitorCore:
    """A cluster whose nodes have all joined at time 0."""
    tracker = ResourceMonitorCore()
    for name in names or ("n1",):
        tracker.status(node_status(name), 0.0)
        tracker.info(node_info(name), 0.0)
        tracker.vitals(node_vitals(name), 0.0)
    tracker.tick(0.0)
    return tracker


def online(tracker: ResourceMonitorCore, now_ms: float = 0.0) -> dict[str, str]:
    """Boot ids of the nodes that are online."""
    return {node.node: node.boot for node in tracker.cluster(1, now_ms).nodes if node.online}


def listen(tracker: ResourceMonitorCore, start_ms: float, end_ms: float) -> bool:
    """Tick as the service does; whether members changed."""
    changes = [tracker.tick(float(now)) for now in range(int(start_ms), int(end_ms) + 1, 100)]
    return any(changes)


def hear(tracker: ResourceMonitorCore, saying: NodeStatus | NodeInfo | NodeVitals, now_ms: float) -> bool:
    match saying:
        case NodeStatus():
            return tracker.status(saying, now_ms)
        case NodeInfo():
            return tracker.info(saying, now_ms)
        case NodeVitals():
            return tracker.vitals(saying, now_ms)


@pytest.mark.parametrize("sayings", [(node_status(), node_info()), (node_info(), node_status())])
def test_a_node_joins_when_status_and_info_are_known_in_either_order(
    sayings: tuple[NodeStatus | NodeInfo, NodeStatus | NodeInfo],
) -> None:
    tracker = ResourceMonitorCore()
    assert hear(tracker, sayings[0], 0.0) is False
    assert online(tracker) == {}
    assert hear(tracker, sayings[1], 0.0) is True
    assert online(tracker) == {"n1": FIRST}


def test_what_a_node_measured_of_its_link_replaces_what_is_assumed() -> None:
    tracker = joined()
    link = LinkFigures(down_megabytes_per_second=1.25, round_trip_ms=6.0)
    tracker.info(node_info("n1", FIRST, link=link), 100.0)
    (state,) = tracker.cluster(1, 100.0).nodes
    assert (state.link_megabytes_per_second, state.up, state.round_trip_ms) == (1.25, 1.25, 6.0)
    assert state.latency_ms == 3.0


def test_what_is_known_of_the_brokers_link_is_told() -> None:
    assert ResourceMonitorCore().cluster(1, 0.0).broker_megabytes_per_second is None
    told = ResourceMonitorCore(broker_megabytes_per_second=12.0).cluster(1, 0.0)
    assert told.broker_megabytes_per_second == 12.0


def test_the_view_of_a_node_is_what_its_info_and_last_heartbeat_say() -> None:
    tracker = joined()
    (state,) = tracker.cluster(9, 400.0).nodes
    assert state == NodeState(
        node="n1",
        boot=FIRST,
        online=True,
        silent_ms=400.0,
        score=50.0,
        memory_budget_bytes=1000,
        loaded=("0" * 64,),
        queue_ms=7.0,
        queue_length=2,
        cpu_ratio=0.5,
        link_megabytes_per_second=100.0,
        timings=(),
    )
    assert tracker.cluster(9, 400.0).sequence == 9


def test_the_newest_speed_of_a_node_counts() -> None:
    tracker = joined()
    (state,) = tracker.cluster(1, 0.0).nodes
    assert (state.score, state.threads, state.together) == (50.0, 1, 1.0)
    speed = NodeSpeed(score=20.0, threads=4, speed_up=2.5, together=1.4)
    tracker.info(node_info(speed=speed), 1.0)
    (state,) = tracker.cluster(2, 1.0).nodes
    assert (state.score, state.threads, state.together) == (20.0, 4, 1.4)


def test_a_last_will_takes_a_node_offline_at_once_and_only_a_new_status_brings_it_back() -> None:
    tracker = joined()
    assert tracker.status(node_status(online=False), 10.0) is True
    assert online(tracker) == {}
    assert tracker.vitals(node_vitals(), 11.0) is False
    assert online(tracker) == {}
    assert tracker.status(node_status(), 12.0) is True
    assert online(tracker) == {"n1": FIRST}


def test_silence_takes_a_node_offline_after_2500_ms_and_a_heartbeat_revives_it() -> None:
    tracker = joined()
    assert listen(tracker, 0, 2400) is False
    assert listen(tracker, 2500, 2500) is True
    assert online(tracker) == {}
    assert tracker.vitals(node_vitals(), 2600.0) is True
    assert online(tracker) == {"n1": FIRST}


def test_a_node_that_keeps_beating_stays_online() -> None:
    tracker = joined()
    for second in range(1, 10):
        assert listen(tracker, 1000 * (second - 1), 1000 * second) is False
        tracker.vitals(node_vitals(), 1000.0 * second)
    assert online(tracker) == {"n1": FIRST}


def test_nobody_is_called_silent_for_a_time_in_which_the_monitor_did_not_listen() -> None:
    tracker = joined()
    listen(tracker, 0, 2000)
    assert tracker.tick(60_000.0) is False
    assert online(tracker) == {"n1": FIRST}
    assert listen(tracker, 60_100, 62_500) is True


def test_a_restart_is_told_by_its_boot_id_and_the_late_will_of_the_earlier_boot_is_ignored() -> None:
    tracker = joined()
    assert tracker.status(node_status(boot=SECOND), 10.0) is True
    assert online(tracker) == {}
    assert tracker.info(node_info(boot=SECOND, score=60.0), 11.0) is True
    assert tracker.status(node_status(boot=FIRST, online=False), 12.0) is False
    assert online(tracker) == {"n1": SECOND}


def test_a_restarted_node_has_lost_what_it_had_loaded() -> None:
    tracker = joined()
    tracker.status(node_status(boot=SECOND), 10.0)
    tracker.info(node_info(boot=SECOND, loaded=()), 10.0)
    (state,) = tracker.cluster(1, 10.0).nodes
    assert (state.loaded, state.queue_ms, state.boot) == ((), 0.0, SECOND)


def test_messages_of_an_earlier_boot_do_not_bring_it_back() -> None:
    tracker = joined()
    tracker.status(node_status(boot=SECOND), 10.0)
    tracker.info(node_info(boot=SECOND), 10.0)
    assert tracker.vitals(node_vitals(boot=FIRST), 11.0) is False
    assert tracker.info(node_info(boot=FIRST, score=1.0), 12.0) is False
    assert tracker.status(node_status(boot=FIRST), 13.0) is False
    (state,) = tracker.cluster(1, 13.0).nodes
    assert (state.online, state.boot, state.score) == (True, SECOND, 50.0)


def test_two_messages_that_overtook_each_other_shut_out_the_living_process_only_for_a_while() -> None:
    tracker = joined()
    tracker.vitals(node_vitals(boot=SECOND), 10.0)
    tracker.vitals(node_vitals(boot=FIRST), 20.0)
    assert online(tracker) == {}
    tracker.status(node_status(boot=FIRST), 40_000.0)
    assert online(tracker) == {"n1": FIRST}


def test_the_info_of_another_boot_does_not_make_a_node_online() -> None:
    tracker = ResourceMonitorCore()
    tracker.info(node_info(boot=FIRST), 0.0)
    tracker.status(node_status(boot=SECOND), 0.0)
    assert online(tracker) == {}
    tracker.info(node_info(boot=SECOND), 0.0)
    assert online(tracker) == {"n1": SECOND}


def test_heartbeats_alone_do_not_make_a_member() -> None:
    tracker = ResourceMonitorCore()
    tracker.vitals(node_vitals(), 0.0)
    assert tracker.cluster(1, 0.0).nodes == ()
    assert list(tracker.node_metrics()) == []


def test_a_node_is_forgotten_ten_minutes_after_it_was_last_heard_and_not_before() -> None:
    tracker = joined()
    tracker.status(node_status(online=False), 0.0)
    tracker.tick(599_999.0)
    assert len(tracker.cluster(1, 0.0).nodes) == 1
    tracker.tick(600_000.0)
    assert tracker.cluster(1, 0.0).nodes == ()


def test_an_offline_node_whose_retained_status_is_cleared_is_forgotten_at_once() -> None:
    tracker = joined()
    tracker.status(node_status(online=False), 0.0)
    tracker.forget("n1")
    tracker.forget("never-seen")
    assert tracker.cluster(1, 0.0).nodes == ()


def test_an_empty_status_message_takes_no_living_node_away() -> None:
    tracker = joined()
    tracker.forget("n1")
    assert [node.online for node in tracker.cluster(1, 0.0).nodes] == [True]


def test_beyond_the_greatest_number_offline_nodes_make_room_and_online_ones_do_not() -> None:
    tracker = ResourceMonitorCore(max_nodes=2)
    for number, name in enumerate(("n1", "n2", "n3")):
        tracker.info(node_info(name), float(number))
        tracker.status(node_status(name), float(number))
    assert online(tracker) == {"n1": FIRST, "n2": FIRST}

    tracker.status(node_status("n1", online=False), 10.0)
    tracker.info(node_info("n3"), 11.0)
    tracker.status(node_status("n3"), 11.0)
    assert online(tracker) == {"n2": FIRST, "n3": FIRST}


def test_metrics_of_a_node_are_its_last_heartbeat_also_when_it_is_offline() -> None:
    tracker = joined()
    (before,) = tracker.node_metrics()
    tracker.status(node_status(online=False), 1.0)
    (after,) = tracker.node_metrics()
    assert after == before.model_copy(update={"online": False})
    assert (before.cpu_ratio, before.memory_budget_bytes, before.executed) == (0.5, 1000, 5)
    assert (before.temperature_celsius, before.energy_joules) == (41.5, 3.0)


def test_cluster_metrics_add_up_queues_of_online_nodes_and_energy_of_all() -> None:
    tracker = joined("n1", "n2", "n3")
    tracker.vitals(node_vitals("n1", cpu_ratio=1.0, queue_ms=10.0), 0.0)
    tracker.vitals(node_vitals("n2", cpu_ratio=0.5, queue_ms=20.0), 0.0)
    tracker.status(node_status("n3", online=False), 0.0)
    metrics = tracker.cluster_metrics()
    assert (metrics.nodes, metrics.online, metrics.queue_ms, metrics.energy_joules) == (3, 2, 30.0, 9.0)
    assert metrics.fairness == pytest.approx(1.5**2 / (2 * 1.25))


def test_an_empty_cluster_has_no_fairness() -> None:
    assert ResourceMonitorCore().cluster_metrics().fairness is None


@given(cpu=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_nodes_that_claim_the_most_a_message_allows_do_not_break_the_sums(cpu: list[float]) -> None:
    names = [f"n{number}" for number in range(len(cpu))]
    tracker = joined(*names)
    for name, cpu_ratio in zip(names, cpu, strict=True):
        tracker.vitals(node_vitals(name, cpu_ratio=cpu_ratio, queue_ms=1e12, energy_joules=1e18), 0.0)
    metrics = tracker.cluster_metrics()
    assert (metrics.queue_ms, metrics.energy_joules) == (1e12, 1e18)
    assert metrics.fairness is not None


_BOOTS = st.sampled_from([FIRST, SECOND, THIRD])
_SAYINGS = st.one_of(
    st.builds(node_status, boot=_BOOTS, online=st.booleans()),
    st.builds(node_info, boot=_BOOTS),
    st.builds(node_vitals, boot=_BOOTS),
)


@given(sayings=st.lists(_SAYINGS, max_size=30), last=_BOOTS)
def test_whatever_came_before_a_node_that_starts_anew_is_online_within_its_next_messages(
    sayings: list[NodeStatus | NodeInfo | NodeVitals], last: str
) -> None:
    tracker = ResourceMonitorCore()
    for number, saying in enumerate(sayings):
        before = online(tracker)
        assert hear(tracker, saying, 10.0 * number) is (online(tracker) != before)
    for saying in (node_status(boot=last), node_info(boot=last)):
        hear(tracker, saying, 40_000.0)
    assert online(tracker) == {"n1": last}
