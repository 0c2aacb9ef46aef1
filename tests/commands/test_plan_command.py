"""`splitplace plan` answers in words and as JSON, and refuses what it cannot know."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import exit_code
from tests.support.questions import CALIBRATION, REACH

FEW = ("--seeds", "2", "--tasks", "20", "--arms", "whole")


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    file = tmp_path / "calibration.json"
    pis = REACH.model_copy(update={"node_scores": REACH.node_scores.model_copy(update={"least": 10.0})})
    file.write_text(CALIBRATION.model_copy(update={"reach": pis}).model_dump_json())
    return file


def plan(*arguments: str) -> int:
    return exit_code("plan", *arguments)


def asked(
    calibration: Path, *more: str, nodes: str = "2xpi4,1xpi5", deadline: str = "400ms"
) -> tuple[str, ...]:
    return (
        *("--nodes", nodes, "--app", "mnist", "--rate", "2", "--deadline", deadline),
        *("--calibration", str(calibration), *FEW, *more),
    )


def test_a_plan_says_yes_and_what_it_rests_on(calibration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(*asked(calibration)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Yes: 100% to 100% of the tasks in time" in said
    assert "Calibrated on a made-up run." in said
    assert "nothing was measured on one" in said
    assert "whole on pi5-1" in said


def test_a_plan_that_fails_names_what_would_help(
    calibration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(*asked(calibration, "--json", deadline="10ms")) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "no"
    assert found["forecast"]["hit_rate"]["high"] < 0.95
    assert found["changes"][0]["words"].startswith("a deadline of ")
    assert found["nodes"][0]["basis"].startswith("assumed")
    assert any("did not run in the calibration" in note for note in found["notes"])


def test_a_plan_beyond_the_calibration_is_refused(
    calibration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(*asked(calibration, nodes="1xmonster:speed=5000,memory=8GB")) == 1
    assert "monster has 5000 GFLOP/s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--app", "mnist", "--rate", "2", "--deadline", "1s"), "--from-system"),
        (("--nodes", "2xpi9", "--app", "mnist", "--rate", "2", "--deadline", "1s"), "no kind of node"),
        (("--nodes", "2xpi4", "--app", "dogs", "--rate", "2", "--deadline", "1s"), "no application 'dogs'"),
    ],
)
def test_wrong_flags_are_explained(
    arguments: tuple[str, ...], why: str, calibration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(*arguments, "--calibration", str(calibration)) == 2
    assert why in capsys.readouterr().err


def test_without_a_calibration_a_plan_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitplace.simulator.calibration.SHIPPED", "nowhere.json")
    arguments = ("--nodes", "pi4", "--app", "mnist", "--rate", "2", "--deadline", "1s")
    assert plan(*arguments, "--state-dir", str(tmp_path)) == 1
    assert "splitplace calibrate run.jsonl" in capsys.readouterr().err
