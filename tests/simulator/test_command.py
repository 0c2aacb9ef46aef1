import json
from pathlib import Path

import pytest

from splitplace.commands.main import main

FEW = ("--hosts", "4", "--intervals", "3", "--rate", "2")


def run(*arguments: str) -> int:
    """Exit code of `splitplace simulate`."""
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *FEW, *arguments])
    return int(ended.value.code or 0)


def test_a_simulation_is_written_to_a_file_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    assert run("--policy", "semantic+random", "--json", str(file), "--records") == 0
    result = json.loads(file.read_text())
    assert {
        "reward",
        "accuracy",
        "sla_violation_rate",
        "response_intervals",
        "wait_intervals",
        "fairness",
        "energy_mj_per_interval",
        "cost_usd",
        "decision_ms",
        "tasks",
        "decisions",
        "by_application",
        "wall_s",
        "cpu_s",
    } <= result.keys()
    assert len(result["records"]) == result["tasks"]["arrived"]
    assert "SLA violations" in capsys.readouterr().out


def test_json_may_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--policy", "semantic+random", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["policy"] == "semantic+random"


def test_settings_come_from_a_file_and_flags_go_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scenario.json"
    file.write_text('{"rate": 50, "mobility": false, "failures": {"mean_intervals_between": 5}}')
    assert run("--policy", "semantic+random", "--scenario", str(file), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["rate"] == 2


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--policy", "mab"), "split+placement"),
        (("--policy", "guess+random"), "no split policy 'guess'"),
        (("--machines", "pi9"), "pi9"),
        (("--mode", "sometimes"), "mode"),
        (("--scenario", "nowhere.json"), "nowhere.json"),
        (("--profile", "store", "--store", "nowhere"), "nowhere"),
        (("--arms", "quantum"), "quantum"),
    ],
)
def test_what_cannot_be_simulated_is_explained(
    flags: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*flags) == 2
    assert problem in capsys.readouterr().err
