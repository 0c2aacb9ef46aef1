"""`splitplace replay` reads what was recorded and says how far it can be trusted."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from splitplace.commands.watch.recording import Log, RecordingError, recording
from splitplace.messages.task import TaskAccepted, TaskDecided, TaskFinished
from splitplace.policies.splitting import split_policy
from tests.support.commands import exit_code
from tests.support.split_examples import context, outcome

DRAWN = 0.5


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """200 tasks under a policy that draws: the layer split is late and the semantic one in time."""
    return write(tmp_path / "log.jsonl", propensity=DRAWN)


def write(path: Path, propensity: float) -> Path:
    random = Random(0)
    with recording(path) as recorder:
        assert recorder is not None
        for number in range(200):
            asked = context(task=f"c.t{number}", deadline_ms=120.0)
            variant = random.choice(["layer", "semantic"])
            decided = TaskDecided(
                task=asked.task,
                attempt=1,
                application=asked.application,
                batch=asked.batch,
                slack_ms=asked.slack_ms,
                policy="random",
                variant=variant,
                reason="drawn",
                predicted_ms=None,
                alternatives=tuple(arm.estimate() for arm in asked.arms),
                deadline_ms=asked.deadline_ms,
                propensity=propensity,
            )
            recorder.take(f"job/{asked.task}/decided", decided)
            end = outcome(asked, variant, 150.0 if variant == "layer" else 60.0)
            recorder.take(f"job/{asked.task}/finished", end)
    return path


def run(*arguments: str) -> int:
    return exit_code("replay", *arguments)


def test_a_policy_is_estimated_from_a_log(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(log), "--policy", "semantic", "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (found["policy"], found["tasks"], found["broken_lines"]) == ("semantic", 200, 0)
    assert found["doubly_robust"]["value"] == pytest.approx(0.9, abs=0.01)
    assert found["self_normalised"]["value"] == pytest.approx(0.9)
    assert found["logged"]["value"] == pytest.approx((0.45 + 0.9) / 2, abs=0.05)
    assert found["gain"]["low"] > 0.15


def test_the_table_says_what_no_log_can_know(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(log), "--policy", "rule") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "rule, doubly robust" in shown
    assert "with the queues that the logging policy caused" in shown


def test_a_log_of_a_policy_that_never_draws_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(write(tmp_path / "sure.jsonl", propensity=1.0)), "--policy", "semantic") == 1
    assert "a policy that never draws says nothing" in capsys.readouterr().err


def test_a_policy_goes_on_from_what_a_splitter_has_learnt(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learnt = split_policy("linucb")
    asked = context(deadline_ms=120.0)
    for _ in range(30):
        learnt.learn(asked, outcome(asked, "layer", 150.0))
        learnt.learn(asked, outcome(asked, "semantic", 60.0))
    saved = tmp_path / "splitter.json"
    saved.write_text(json.dumps({"version": 1, "policy": "linucb", "policy_state": dict(learnt.state())}))
    assert run(str(log), "--policy", "linucb", "--warm-start", str(saved), "--json") == 0
    warm = json.loads(capsys.readouterr().out)
    assert run(str(log), "--policy", "semantic", "--json") == 0
    assert warm["agreement"] == json.loads(capsys.readouterr().out)["agreement"]
    assert run(str(log), "--policy", "thompson", "--warm-start", str(saved)) == 2
    assert "is not the saved state of thompson" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "complaint"),
    [
        (("--policy", "best"), 2, "no split policy 'best'"),
        (("--policy", "mab+daso"), 2, "a log says nothing about placement policies"),
        (("--policy", "mab", "--arms", ","), 2, "no arms"),
    ],
)
def test_wrong_flags_are_usage_errors(
    log: Path, flags: tuple[str, ...], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(log), *flags) == code
    assert complaint in capsys.readouterr().err


def test_a_missing_log_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "none.jsonl"), "--policy", "rule") == 1
    assert "No such file" in capsys.readouterr().err


def test_a_log_of_an_earlier_version_is_read_as_one_of_this(log: Path) -> None:
    events = list(Log(log).events())
    lines = log.read_text()
    log.write_text(lines.replace('"version":2', '"version":1'))
    assert log.read_text() != lines
    read = Log(log)
    assert list(read.events()) == events
    assert read.broken == 0


def test_lines_of_other_topics_are_ignored_and_broken_ones_counted(log: Path) -> None:
    lines = log.read_text().splitlines()
    forged = lines[0].replace("job/c.t0/decided", "job/c.t1/decided")
    other = '{"topic": "splitplace/v1/job/c.t0/placed", "payload": {}}'
    deep = "[" * 100_000
    long = '{"topic": "' + "x" * 2_000_000 + '"}'
    log.write_text(
        "\n".join([lines[0], "no json", "[]", '{"topic": 7}', forged, other, deep, lines[1], long])
    )
    read = Log(log)
    assert [type(event) for event in read.events()] == [TaskDecided, TaskFinished]
    assert read.broken >= 6


def test_what_mosquitto_sub_writes_is_read(log: Path) -> None:
    ours = json.loads(log.read_text().splitlines()[0])
    theirs = {"tst": "2026-01-01T00:00:00Z", "qos": 1, **ours, "topic": f"my/own/prefix/{ours['topic']}"}
    log.write_text(json.dumps(theirs))
    assert [event.task for event in Log(log).events()] == ["c.t0"]


def test_decisions_that_version_0_1_recorded_are_read(log: Path) -> None:
    events = list(Log(log).events())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        for alternative in line["payload"].get("alternatives", ()):
            del alternative["kind"]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    again = Log(log)
    assert list(again.events()) == events
    assert not again.broken


def test_only_decisions_and_ends_are_recorded(tmp_path: Path) -> None:
    accepted = TaskAccepted(
        task="c.t", attempt=1, application="toy", batch=1, input_bytes=1, deadline_ms=1.0, slack_ms=1.0
    )
    with recording(tmp_path / "log.jsonl") as recorder:
        assert recorder is not None
        recorder.take("job/c.t/accepted", accepted)
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_a_log_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be written: Is a directory"), recording(tmp_path):
        pass
