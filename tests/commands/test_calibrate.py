"""`splitplace calibrate` reads what `watch --record` wrote, and says how far off the fit is."""

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from splitplace.commands.watch.recording import STATE_EVERY_S, Log, Recorder
from splitplace.messages.cluster import ClusterState
from splitplace.messages.task import TaskDecided
from splitplace.planning.logged import LogEntry
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.calibration import read_calibration
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from tests.support.cluster_parts import parts_of
from tests.support.commands import exit_code
from tests.support.logs import log_of
from tests.support.questions import CALIBRATION, cluster, question


@pytest.fixture(scope="module")
def entries() -> list[LogEntry]:
    """80 tasks of one image, of a system whose hops take 6 ms."""
    (mnist,) = [each for each in ModelStore(SHIPPED_STORE).applications() if each.name == "mnist"]
    arrivals = [Arrival(f"sim.{n}", 100.0 * n, "mnist", 1, 500.0) for n in range(80)]
    slow = CALIBRATION.model_copy(update={"hop_ms": 6.0})
    return log_of(question(application=mnist, calibration=slow, cluster=cluster(2)), arrivals)


def write(path: Path, entries: list[LogEntry]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for at_s, message in entries:
            name = "cluster/state" if isinstance(message, ClusterState) else _topic(message)
            Recorder(file, partial(float, at_s or 0.0)).take(name, message)
    return path


def _topic(message: Any) -> str:
    return f"job/{message.task}/{'decided' if isinstance(message, TaskDecided) else 'finished'}"


def calibrate(*arguments: str) -> int:
    return exit_code("calibrate", *arguments)


def test_constants_are_fitted_checked_and_written(
    entries: list[LogEntry], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, out = write(tmp_path / "log.jsonl", entries), tmp_path / "calibration.json"
    assert (
        calibrate(str(log), "--out", str(out), "--where", "two sheds", "--policy", "rule+earliest-finish")
        == 0
    )
    said = capsys.readouterr().out
    assert "Check on 40 tasks" in said
    fitted = read_calibration(out)
    assert fitted.hop_ms == pytest.approx(6.0, rel=0.05)
    assert fitted.measured_on.startswith("two sheds, 80 tasks on 2 nodes of ")
    assert fitted.check is not None
    assert fitted.check.hit_rate_error <= 0.05


def test_what_is_fitted_is_printed_as_json(
    entries: list[LogEntry], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "calibration.json"
    assert calibrate(str(write(tmp_path / "log.jsonl", entries)), "--out", str(out), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(out)
    assert found["tasks"] == 80


def test_a_log_that_says_too_little_is_refused(
    entries: list[LogEntry], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "calibration.json"
    assert calibrate(str(write(tmp_path / "log.jsonl", entries[:9])), "--out", str(out)) == 1
    assert "20 are needed" in capsys.readouterr().err
    assert not out.exists()
    assert calibrate(str(tmp_path / "nowhere.jsonl"), "--out", str(out)) == 1


def test_a_log_holds_times_and_now_and_then_the_nodes(entries: list[LogEntry], tmp_path: Path) -> None:
    state = next(message for _, message in entries if isinstance(message, ClusterState))
    times = [100.0, 101.0, 100.0 + STATE_EVERY_S]
    log = tmp_path / "log.jsonl"
    with log.open("w", encoding="utf-8") as file:
        recorder = Recorder(file, iter(times).__next__)
        for _ in times:
            recorder.take("cluster/state", state)
    found = list(Log(log).entries())
    assert [at_s for at_s, _ in found] == [100.0, 100.0 + STATE_EVERY_S]
    assert all(message == state for _, message in found)
    assert list(Log(log).events()) == [], "replay does not read them"


def test_times_that_mosquitto_sub_writes_are_read(entries: list[LogEntry], tmp_path: Path) -> None:
    decided = next(message for _, message in entries if isinstance(message, TaskDecided))
    log = tmp_path / "log.jsonl"
    line = {
        "tst": "2026-11-29T04:00:00.500000+00:00",
        "topic": f"splitplace/v1/job/{decided.task}/decided",
        "payload": decided.model_dump(mode="json"),
    }
    log.write_text(json.dumps(line) + "\n")
    ((at_s, message),) = Log(log).entries()
    assert message == decided
    assert at_s == datetime(2026, 11, 29, 4, 0, 0, 500_000, tzinfo=UTC).timestamp()


def test_the_parts_of_the_cluster_that_mosquitto_sub_writes_are_put_together(
    entries: list[LogEntry], tmp_path: Path
) -> None:
    state = next(message for _, message in entries if isinstance(message, ClusterState))
    nodes, members = parts_of(state)
    log = tmp_path / "log.jsonl"
    names = [f"splitplace/v1/cluster/node/{node.node}" for node in nodes]
    log.write_text(
        "".join(
            json.dumps({"topic": name, "payload": part.model_dump(mode="json")}) + "\n"
            for name, part in zip((*names, "splitplace/v1/cluster/members"), (*nodes, members), strict=True)
        )
    )
    ((_, message),) = Log(log).entries()
    assert isinstance(message, ClusterState)
    assert [(node.node, node.timings) for node in message.nodes] == [
        (node.node, node.timings) for node in state.nodes
    ]
