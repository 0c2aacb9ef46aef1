import json
from pathlib import Path

import pytest

from tests.support.commands import exit_code

FEW = ("--hosts", "4", "--intervals", "3", "--rate", "2")


def run(*arguments: str) -> int:
    """Exit code of `splitplace simulate`."""
    return exit_code("simulate", *FEW, *arguments)


def test_a_simulation_is_printed_as_json_with_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--policy", "semantic+random", "--json", "--records") == 0
    result = json.loads(capsys.readouterr().out)
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


def test_a_simulation_is_printed_as_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--policy", "semantic+random") == 0
    assert "SLA violations" in capsys.readouterr().out


def test_settings_come_from_a_file_and_flags_go_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scenario.json"
    file.write_text('{"rate": 50, "mobility": false, "failures": {"mean_intervals_between": 5}}')
    assert run("--policy", "semantic+random", "--scenario", str(file), "--json") == 0
    assert json.loads(capsys.readouterr().out)["rate"] == 2


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--policy", "mab"), "split+placement"),
        (("--policy", "guess+random"), "no split policy 'guess'"),
        (("--machines", "pi9"), "pi9"),
        (("--mode", "sometimes"), "mode"),
        (("--scenario", "nowhere.json"), "nowhere.json"),
        (("--arms", "quantum"), "quantum"),
    ],
)
def test_what_cannot_be_simulated_is_explained(
    flags: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*flags) == 2
    assert problem in capsys.readouterr().err


def test_a_missing_model_store_is_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--profile", "store", "--store", "nowhere") == 1
    assert "nowhere: is not a folder" in capsys.readouterr().err


def test_settings_of_the_file_hold_where_no_flag_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scenario.json"
    file.write_text('{"rate": 3, "hosts": 4, "intervals": 2}')
    assert exit_code("simulate", "--policy", "semantic+random", "--scenario", str(file), "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["rate"], result["hosts"], result["intervals"]) == (3, 4, 2)
