"""The dashboard's model of a system."""

from pathlib import Path
from statistics import median

import pytest

from splitplace.commands.dashboard.health import health, times_of_others
from splitplace.commands.dashboard.history import MAX_DETAILED, History, open_history
from splitplace.commands.dashboard.minutes import Minute, period
from splitplace.commands.dashboard.state import GONE_S, MAX_SENSORS, MAX_TASKS, DashboardState
from splitplace.commands.dashboard.views import node_views, now_view, sensor_views, task_rows
from splitplace.commands.shared.task_record import timeline, why
from splitplace.messages.cluster import ClusterState, NodeState, NodeStatus, ServiceStatus, StageFailure
from splitplace.messages.metrics import NodeMetrics, SensorMetrics, ServiceMetrics
from splitplace.messages.task import StageReport, VariantEstimate
from splitplace.messages.topics import SERVICES
from tests.support.message_examples import application
from tests.support.messages import BOOTS, accepted, decided, finished

NOW_S = 1_800_000_000.0


def node(name: str, **changes: object) -> NodeState:
    fields: dict[str, object] = {
        "node": name,
        "boot": BOOTS[0],
        "online": True,
        "silent_ms": 0,
        "score": 10,
        "memory_budget_bytes": 10**9,
        "loaded": (),
        "queue_ms": 0,
        "queue_length": 0,
        "cpu_ratio": 0.1,
        "link_megabytes_per_second": 10,
        "timings": (),
    }
    return NodeState.model_validate(fields | changes)


def service_metrics(service: str) -> ServiceMetrics:
    counts = ("received", "rejected", "overflowed", "reconnects", "refused")
    return ServiceMetrics.model_validate({"service": service, **dict.fromkeys(counts, 0)})


@pytest.fixture
def state() -> DashboardState:
    """A system that is well: five services and three nodes."""
    state = DashboardState(started_s=NOW_S, connected=True)
    for name in SERVICES:
        status = ServiceStatus(service=name, boot=BOOTS[0], online=True, software="1.0")
        state.apply(f"service/{name}/status", status, NOW_S)
        state.apply(f"metrics/service/{name}", service_metrics(name), NOW_S)
    for name in ("a", "b", "c"):
        state.apply(f"node/{name}/status", NodeStatus(node=name, boot=BOOTS[0], online=True), NOW_S)
    state.apply("cluster/state", ClusterState(sequence=1, nodes=(node("a"), node("b"), node("c"))), NOW_S)
    state.apply("application/digits", application(), NOW_S)
    return state


def run_task(state: DashboardState, task: str, now_s: float = NOW_S, **end: object) -> None:
    state.apply(f"job/{task}/accepted", accepted(task), now_s)
    state.apply(f"job/{task}/decided", decided(task, reason="it is the quickest"), now_s)
    state.apply(f"job/{task}/finished", finished(task, **end), now_s)


def test_a_system_without_faults_is_well(state: DashboardState) -> None:
    assert health(state, NOW_S, "1.0").light == "well", health(state, NOW_S, "1.0").why


def test_without_a_broker_it_is_broken_and_says_what_to_do(state: DashboardState) -> None:
    state.lost("no broker answers")
    found = health(state, NOW_S, "1.0")
    assert (found.light, found.why) == ("broken", "broker: no broker answers")
    assert found.checks[0].remedy


def test_a_silent_service_breaks_it_although_its_last_word_says_online(state: DashboardState) -> None:
    later = NOW_S + 60
    for name in SERVICES[1:]:
        state.apply(f"metrics/service/{name}", service_metrics(name), later)
    state.apply(f"metrics/service/{SERVICES[0]}", service_metrics(SERVICES[0]), later, retained=True)
    found = health(state, later, "1.0")
    assert found.light == "broken"
    assert SERVICES[0] in found.why


def test_a_slow_link_is_named(state: DashboardState) -> None:
    slow = node("b", link_megabytes_per_second=0.5)
    state.apply("cluster/state", ClusterState(sequence=2, nodes=(node("a"), slow, node("c"))), NOW_S)
    found = health(state, NOW_S, "1.0")
    assert found.light == "strained"
    assert "b has 0.5 MB/s" in found.why


def test_a_node_that_computes_longer_than_expected_is_named(state: DashboardState) -> None:
    state.nodes["c"].work_ratios.extend([3.0] * 10)
    assert "c computes 3.0 times as long" in health(state, NOW_S, "1.0").why


def run_some(state: DashboardState, executed: int) -> None:
    """Let every node have run so many micro-batches."""
    bytes_ = dict.fromkeys(("resident_bytes", "loaded_bytes", "sent_bytes", "received_bytes"), 0)
    counts = {"queue_length": 0, "queue_ms": 0, "dropped": 0, "cpu_ratio": 0, "energy_joules": 0}
    for name in state.nodes:
        fields = {"node": name, "online": True, "executed": executed, "memory_budget_bytes": 10**9}
        metrics = fields | bytes_ | counts | {"temperature_celsius": None, "throttled": None}
        state.apply(f"metrics/node/{name}", NodeMetrics.model_validate(metrics), NOW_S)


def timed(name: str, *milliseconds: float, score: float = 10.0) -> NodeState:
    """A node that has measured these times of an image in so many fragments."""
    timings = [
        {"fragment": f"{number:064x}", "milliseconds_per_image": each}
        for number, each in enumerate(milliseconds)
    ]
    return node(name, score=score, timings=tuple(timings))


def test_a_node_that_everybody_knows_to_be_slow_is_still_named(state: DashboardState) -> None:
    nodes = (timed("a", 20.0, 5.0), timed("b", 50.0, score=4.0), timed("c", 220.0, 4.5, 0.9))
    state.apply("cluster/state", ClusterState(sequence=2, nodes=nodes), NOW_S)
    run_some(state, 2)
    assert times_of_others(state.nodes) == {}  # the first runs say little
    run_some(state, 10)
    assert times_of_others(state.nodes) == pytest.approx({"a": 0.58, "b": 0.15, "c": 5.95}, abs=0.1)
    assert "c computes 6.0 times as long as expected" in health(state, NOW_S, "1.0").why


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_a_node_is_compared_with_the_median_of_the_others(state: DashboardState, count: int) -> None:
    took = dict(zip("cafbed", (40.0, 10.0, 30.0, 30.0, 80.0, 20.0), strict=True))
    took = dict(list(took.items())[:count])
    nodes = tuple(timed(name, each) for name, each in took.items())
    state.apply("cluster/state", ClusterState(sequence=2, nodes=nodes), NOW_S)
    run_some(state, 10)
    expected = {
        name: each / median(rest for other, rest in took.items() if other != name)
        for name, each in took.items()
    }
    assert times_of_others(state.nodes) == pytest.approx(expected)


def test_a_node_of_a_low_score_is_not_slow(state: DashboardState) -> None:
    nodes = (timed("a", 20.0), timed("b", 200.0, score=1.0), timed("c", 10.0, score=20.0))
    state.apply("cluster/state", ClusterState(sequence=2, nodes=nodes), NOW_S)
    run_some(state, 10)
    assert health(state, NOW_S, "1.0").light == "well"


def test_a_flooding_sensor_is_named(state: DashboardState) -> None:
    for number in range(600):
        run_task(state, f"flooder.{number}", on_time=False)
    run_task(state, "quiet.1")
    found = health(state, NOW_S, "1.0")
    assert "flooder sends 10 of 10 tasks a second" in found.why


def sensor_metrics(sensor: str, **counts: int) -> SensorMetrics:
    names = ("finished", "answered", "on_time", "late", "refused", "invalid", "expired", "failed")
    fields: dict[str, object] = {"late_ratio": None, "last_status": "refused", "last_response_ms": None}
    given = dict.fromkeys(names, 0) | counts
    return SensorMetrics.model_validate({"sensor": sensor, "name": sensor, **fields, **given})


def test_a_flooding_sensor_is_named_although_all_of_its_tasks_are_refused(state: DashboardState) -> None:
    state.apply("metrics/sensor/flooder", sensor_metrics("flooder", refused=500), NOW_S - 50, retained=True)
    for number in range(60):
        run_task(state, f"camera.{number}", NOW_S - number)
    assert health(state, NOW_S, "1.0").light == "well"
    for second in range(60):
        refused = sensor_metrics("flooder", refused=500 + 20 * second, invalid=second)
        state.apply("metrics/sensor/flooder", refused, NOW_S - 60 + second)
    found = health(state, NOW_S, "1.0")
    assert "flooder sends 21 of 22 tasks a second, and 21 a second are refused" in found.why
    assert [each.sensor for each in sensor_views(state, NOW_S)] == ["camera", "flooder"]
    flooder = sensor_views(state, NOW_S)[1]
    assert (flooder.refused, flooder.last_outcome) == (500 + 20 * 59 + 59, "refused")


def test_refused_tasks_of_sensors_beyond_the_bound_are_not_counted_again_and_again(
    state: DashboardState,
) -> None:
    for number in range(MAX_SENSORS):
        state.apply(f"metrics/sensor/s{number}", sensor_metrics(f"s{number}"), NOW_S)
    for second in range(10):
        refused = sensor_metrics("stranger", refused=500 + second)
        state.apply("metrics/sensor/stranger", refused, NOW_S + second)
    assert state.sent_lately(NOW_S + 10).total() == 0


def test_who_was_refused_after_it_was_accepted_is_not_counted_twice(state: DashboardState) -> None:
    for number in range(300):
        run_task(state, f"camera.{number}", status="refused", on_time=False)
        counts = {"finished": number + 1, "refused": number + 1}
        state.apply("metrics/sensor/camera", sensor_metrics("camera", **counts), NOW_S)
    assert state.sent_lately(NOW_S) == {"camera": 300}


def test_a_busy_sensor_whose_tasks_are_on_time_is_no_flood(state: DashboardState) -> None:
    for number in range(600):
        run_task(state, f"busy.{number}")
    assert health(state, NOW_S, "1.0").light == "well"


def test_a_node_that_is_gone_stays_marked_and_is_forgotten_later(state: DashboardState) -> None:
    state.apply("node/b/status", NodeStatus(node="b", boot=BOOTS[0], online=False), NOW_S + 1)
    state.clear("node/b/status", NOW_S + 2)
    gone = {each.node: each for each in node_views(state, NOW_S + 30)}
    assert not gone["b"].online
    assert gone["b"].gone_s == pytest.approx(30)
    state.apply("cluster/state", ClusterState(sequence=3, nodes=(node("a"), node("c"))), NOW_S + GONE_S)
    assert {each.node for each in node_views(state, NOW_S + GONE_S + 1)} == {"a", "c"}


def test_the_last_hour_counts_and_nothing_before(state: DashboardState) -> None:
    run_task(state, "c.old", NOW_S - 7200, on_time=False)
    for number in range(9):
        run_task(state, f"c.{number}", response_ms=100)
    run_task(state, "c.late", response_ms=2000, on_time=False)
    hour = now_view(state, NOW_S, "1.0").hour
    assert (hour.finished, hour.on_time, hour.late) == (10, 9, 1)
    assert hour.hit_rate == pytest.approx(0.9)
    assert hour.p50_ms == pytest.approx(100, rel=0.1)
    assert hour.p95_ms == pytest.approx(2000, rel=0.1)


def test_memory_is_bounded(state: DashboardState) -> None:
    for number in range(MAX_TASKS + 50):
        run_task(state, f"s{number}.t")
    assert len(state.tasks) == MAX_TASKS
    assert len(state.sensors) == MAX_SENSORS
    assert f"s{MAX_TASKS + 49}.t" in state.tasks
    assert len(state.ended) <= MAX_TASKS


def test_only_what_changed_is_told_again(state: DashboardState) -> None:
    run_task(state, "c.1")
    seen = state.changes
    run_task(state, "c.2")
    assert [each.task for each in task_rows(state, seen)] == ["c.2"]


def test_sensors_count_how_their_tasks_ended(state: DashboardState) -> None:
    run_task(state, "cam.1")
    run_task(state, "cam.2", on_time=False)
    run_task(state, "cam.3", status="expired", on_time=False)
    (sensor,) = sensor_views(state, NOW_S)
    assert (sensor.finished, sensor.on_time, sensor.late, sensor.lost, sensor.per_minute) == (3, 1, 1, 1, 3)


def test_why_is_said_in_sentences(state: DashboardState) -> None:
    estimates = tuple(
        VariantEstimate(variant=name, kind="whole", accuracy=0.9, predicted_ms=50, note="")
        for name in ("whole", "other")
    )
    state.apply("job/c.1/decided", decided("c.1", reason="quickest", alternatives=estimates), NOW_S)
    failure = StageFailure(node="b", task="c.1", attempt=1, stage="front", kind="memory", reason="full")
    state.apply("node/b/failure", failure, NOW_S)
    report = StageReport(stage="whole", node="a", queue_ms=5, compute_ms=80)
    end = finished("c.1", predicted_ms=50, after_decision_ms=95, stages=(report,))
    state.apply("job/c.1/finished", end, NOW_S)
    assert why(state.tasks["c.1"]) == (
        "Answered after 100 ms, 900 ms before its deadline. "
        "“whole” was chosen among 2 ways to run it: quickest. "
        "50 ms were predicted, and it took 95 ms. The longest part was computing on a: 80 ms. "
        "It was repeated: b: full."
    )


def test_branches_begin_together_and_chains_one_after_the_other(state: DashboardState) -> None:
    reports = [
        StageReport(stage=name, node=name[0], queue_ms=10, compute_ms=20) for name in ("left", "right")
    ]
    run_task(state, "c.1", variant="semantic", stages=tuple(reports), after_decision_ms=90)
    assert [bar.start_ms for bar in timeline(state.tasks["c.1"], application())] == [10, 10]
    reports = [
        StageReport(stage=name, node=name[0], queue_ms=10, compute_ms=20) for name in ("front", "back")
    ]
    run_task(state, "c.2", variant="layer", stages=tuple(reports), after_decision_ms=90)
    assert [bar.start_ms for bar in timeline(state.tasks["c.2"], application())] == [10, 40]


def test_the_history_outlives_a_restart_and_forgets(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite3"
    minute = Minute(int(NOW_S // 60))
    minute.add(finished(response_ms=80))
    history = History(path)
    history.add([("old", b"1")], [Minute(int(NOW_S // 60) - 60 * 24 * 40)], NOW_S - 90_000)
    history.add([("c.1", b'{"a": 1}')], [minute], NOW_S)
    history.close()
    history = History(path)
    assert history.task("c.1") == b'{"a": 1}'
    assert history.task("old") is None
    assert history.minutes(0) == [minute]
    assert period(history.minutes(0)).p50_ms == pytest.approx(80, rel=0.1)
    history.close()
    assert MAX_DETAILED > MAX_TASKS


def test_a_damaged_history_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite3"
    path.write_bytes(b"no database" * 1000)
    open_history(path).close()
    assert [each.name for each in tmp_path.glob("*.unusable")] == ["h.sqlite3.unusable"]
