"""Decisions over time, other deadlines, regret, pictures, and what if: pure, from made-up tasks."""

import base64
import io
import json
from pathlib import Path
from random import Random

import msgpack
import pytest
from PIL import Image

from splitplace.commands.dashboard import regret, what_if
from splitplace.commands.dashboard.decisions import over_time
from splitplace.commands.dashboard.gallery import MAX_KEPT, Gallery, first_picture
from splitplace.commands.dashboard.on_request import Wanted
from splitplace.commands.dashboard.other_deadlines import other_deadlines
from splitplace.commands.dashboard.state import DashboardState
from splitplace.commands.shared.drawing import DrawingError
from splitplace.commands.shared.task_record import TaskRecord
from splitplace.errors import SplitPlaceError
from splitplace.messages.cluster import ClusterState, NodeState, NodeStatus
from splitplace.messages.findings import Prediction
from splitplace.messages.task import Answer, VariantEstimate
from splitplace.planning.forecast import forecast
from splitplace.planning.question import OutOfReachError
from splitplace.simulator.calibration import CalibrationError
from tests.support.dashboards import calibrated, picture
from tests.support.message_examples import application
from tests.support.messages import BOOTS, accepted, decided, finished, placed

NOW_S = 1_800_000_000.0
ESTIMATES = (
    VariantEstimate(variant="whole", kind="whole", accuracy=0.95, predicted_ms=300, note="on a"),
    VariantEstimate(variant="semantic", kind="semantic", accuracy=0.85, predicted_ms=50, note="on a, b"),
)


def record(number: int, *, chosen: str = "whole", policy: str = "rule", **end: object) -> TaskRecord:
    task = f"c.t{number}.0000abcd"
    found = TaskRecord(task, "digits", NOW_S - 600 + number)
    shared = {"application": "digits", "variant": chosen, "promised": 0.85}
    found.take(accepted(task, application="digits"))
    how = {"policy": policy, "alternatives": ESTIMATES, "predicted_ms": 300, "propensity": 0.5}
    found.take(decided(task, **(shared | how)))
    found.take(finished(task, **(shared | {"predicted_ms": 300, "after_decision_ms": 330, **end})))
    return found


def test_predictions_promises_and_variants_of_the_last_tasks_stand_beside_what_came() -> None:
    found = over_time([record(0), record(1, on_time=False), record(70, chosen="semantic")])
    assert [each.variants for each in found.minutes] == [{"whole": 2}, {"semantic": 1}]
    assert [(each.predicted_ms, each.actual_ms) for each in found.points] == [(300, 330)] * 3
    (promises,) = found.promises
    assert promises.tasks == 3
    assert promises.kept == pytest.approx(2 / 3)
    assert promises.promised == pytest.approx(0.85)


def test_a_short_deadline_is_met_by_branches_and_a_long_one_by_the_whole_network() -> None:
    found = {each.deadline_ms: each for each in other_deadlines(record(0), application())}
    assert list(found) == [250, 500, 1000, 2000, 5000]
    assert (found[250].variant, found[250].stages, found[250].note) == ("semantic", 2, "on a, b")
    assert (found[1000].variant, found[1000].stages) == ("whole", 1)
    assert other_deadlines(TaskRecord("c.t.0", "digits", NOW_S), None) == ()
    short = record(0)
    decision = short.attempts[1].decided
    assert decision is not None
    short.attempts[1].decided = decision.model_copy(update={"deadline_ms": 2.0, "slack_ms": 2.0})
    assert [each.deadline_ms for each in other_deadlines(short, application())] == [1, 2, 4, 10]


def test_regret_is_estimated_or_the_reason_why_not_is_told() -> None:
    random = Random(0)
    drawn = [
        record(number, chosen=(name := random.choice(("whole", "semantic"))), on_time=name == "semantic")
        for number in range(60)
    ]
    found = regret.replayed(regret.events_of(drawn), "semantic")
    assert found.gain is not None
    assert found.gain.low > 0, "always in time would have been better"
    certain = [record(0)]
    for each in certain:
        decision = each.attempts[1].decided
        assert decision is not None
        each.attempts[1].decided = decision.model_copy(update={"propensity": 1.0})
    assert "propensity 1" in regret.replayed(regret.events_of(certain), "semantic").why_not
    assert regret.known_policy("nonsense") is None


def node_state(name: str) -> NodeState:
    return NodeState(
        node=name,
        boot=BOOTS[0],
        online=True,
        silent_ms=0,
        score=10,
        memory_budget_bytes=10**9,
        loaded=(),
        queue_ms=0,
        queue_length=0,
        cpu_ratio=0.1,
        link_megabytes_per_second=10,
        timings=(),
    )


def system(tasks: int = 40) -> DashboardState:
    state = DashboardState(started_s=NOW_S, connected=True)
    nodes = tuple(node_state(name) for name in ("a", "b"))
    for each in nodes:
        state.apply("", NodeStatus(node=each.node, boot=BOOTS[0], online=True), NOW_S)
    state.apply("cluster/state", ClusterState(sequence=1, nodes=nodes), NOW_S)
    state.apply("application/digits", application(), NOW_S)
    for number in range(tasks):
        task = record(number)
        state.tasks[task.task] = task
    return state


def test_what_if_simulates_the_tasks_as_it_is_and_with_the_change(tmp_path: Path) -> None:
    asked = what_if.questions(system(), Wanted(remove="b", deadline_ms=2000), NOW_S, calibrated(tmp_path))
    unchanged, changed, records = asked
    assert (unchanged.cluster.count, changed.cluster.count, len(records)) == (2, 1, 40)
    assert {each.deadline_ms for each in changed.given} == {2000}
    found = what_if.answer(*asked, simulate=forecast)
    assert (found.tasks, found.actual_hit_rate) == (40, 1.0)
    assert found.measured_on == "two nodes in a test"
    assert found.unchanged.hit_rate.low <= found.unchanged.hit_rate.value <= found.unchanged.hit_rate.high
    assert "with the change" in found.sentence


def test_as_it_is_means_with_the_policies_that_are_at_work(tmp_path: Path) -> None:
    state = system()
    last = list(state.tasks.values())[-1]
    last.take(placed(last.task, policy="round-robin"))
    unchanged, changed, _ = what_if.questions(state, Wanted(), NOW_S, calibrated(tmp_path))
    assert (unchanged.policy, changed.policy) == ("rule+round-robin", "rule+round-robin")


def test_what_if_is_refused_without_a_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitplace.simulator.calibration.SHIPPED", "nowhere.json")
    with pytest.raises(CalibrationError, match="there is no calibration yet"):
        what_if.questions(system(), Wanted(), NOW_S, tmp_path)


def test_what_if_refuses_in_a_sentence_what_it_cannot_answer(tmp_path: Path) -> None:
    folder = calibrated(tmp_path)
    with pytest.raises(SplitPlaceError, match="says nothing"):
        what_if.questions(system(tasks=3), Wanted(), NOW_S, folder)
    with pytest.raises(SplitPlaceError, match="there is no node zz"):
        what_if.questions(system(), Wanted(remove="zz"), NOW_S, folder)
    with pytest.raises(SplitPlaceError, match="no kind 'cray'"):
        what_if.questions(system(), Wanted(add="cray"), NOW_S, folder)
    with pytest.raises(OutOfReachError, match=r"jetson has 60 GFLOP/s"):
        what_if.questions(system(), Wanted(add="jetson"), NOW_S, folder)


def test_the_last_picture_of_a_sensor_is_kept_with_what_was_found_in_it() -> None:
    gallery = Gallery()
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "png")
    assert gallery.take("task/digits/front door/7", file.getvalue())
    key = gallery.last_of("front door")
    plain = gallery.drawn(key)
    answer = Answer(
        task="7",
        client="front door",
        application="digits",
        status="answered",
        reason="",
        predictions=(Prediction(label="a cat", index=1, confidence=0.9),),
    )
    assert gallery.take("answer/front door/7", answer.model_dump_json().encode())
    with_answer = gallery.drawn(f"{key}.00ff")
    assert plain is not None
    assert with_answer not in {None, plain}
    assert gallery.has(f"{key}.00ff")
    assert not gallery.take("job/x/accepted", b"{}")


def test_pictures_in_messages_are_found_and_what_is_none_is_not() -> None:
    text = base64.b64encode(picture()).decode()
    assert first_picture(msgpack.packb({"images": [picture()]})) == picture()
    assert first_picture(json.dumps({"image": f"data:image/png;base64,{text}"}).encode()) == picture()
    assert first_picture(picture()) == picture()
    tiff = io.BytesIO()
    Image.new("L", (4, 4)).save(tiff, "tiff")
    assert first_picture(tiff.getvalue()) == tiff.getvalue()
    nested = b'{"a": ' + 100_000 * b"["
    for broken in (
        *(b"", b"{", b"\xc1", b"[1]", nested, 100_000 * b"\x91"),
        *(b'{"images": []}', b'{"images": ["%%"]}', b'{"image": 3}', b'{"image": "bm8gcGljdHVyZQ=="}'),
    ):
        assert first_picture(broken) is None


def test_pictures_are_bounded_and_a_broken_one_is_told() -> None:
    gallery = Gallery()
    for number in range(MAX_KEPT + 50):
        gallery.take(f"task/digits/s{number}/1", picture())
    assert gallery.last_of("s0") == ""
    assert gallery.last_of(f"s{MAX_KEPT + 49}")
    gallery.take("task/digits/broken/1", b"\x89PNG\r\n\x1a\n and nothing more")
    with pytest.raises(DrawingError):
        gallery.drawn(gallery.last_of("broken"))
    file = io.BytesIO()
    Image.new("L", (5000, 5000)).save(file, "png")
    gallery.take("task/digits/huge/1", file.getvalue())
    with pytest.raises(DrawingError, match="too large"):
        gallery.drawn(gallery.last_of("huge"))
