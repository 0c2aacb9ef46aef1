"""From the command to the pages, with simulations so small that they take no time."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splitplace.experiments.catalogue import EXPERIMENTS
from splitplace.experiments.catalogue.real import of_families
from splitplace.experiments.plan import Experiment
from splitplace.experiments.running import RunCache, SimulationRequest, TrainingRun, Workers, requests_of
from splitplace.experiments.session import COMMON, SessionPlan, adapted, conduct, notes_on, simulations
from splitplace.experiments.simulation import by_name, simulate, train_policies
from splitplace.simulator import Scenario
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE

SMALL: dict[str, Any] = {"hosts": 4, "intervals": 12, "rate": 2, "training_intervals": 0}
POLICIES = ("layer+earliest-finish", "semantic+earliest-finish")


def plan_of(*names: str) -> SessionPlan:
    return SessionPlan([EXPERIMENTS[name] for name in names], SMALL, seeds=2, policies=POLICIES)


def test_a_simulation_gives_the_figures_that_the_tables_ask_for() -> None:
    run = simulate(SimulationRequest(Scenario(**SMALL), "semantic+earliest-finish", 0), None)
    assert 0 < run.figures["reward"] <= 1
    assert run.figures["share.semantic"] == 1
    parts = [run.figures[f"response_parts_intervals.{part}"] for part in ("wait", "transfer", "compute")]
    assert sum(parts) == pytest.approx(run.figures["response_intervals.mean"])


def test_the_same_request_gives_the_same_figures_but_for_timings() -> None:
    request = SimulationRequest(Scenario(**SMALL), "rule+earliest-finish", 3)
    timings = {"decision_ms.p50", "decision_ms.p99", "wall_s", "cpu_s"}
    first, second = (
        {name: value for name, value in simulate(request, None).figures.items() if name not in timings}
        for _ in range(2)
    )
    assert first == second


def test_a_bandits_training_is_written_down_interval_by_interval() -> None:
    training_scenario = Scenario.model_validate({**SMALL, "training_intervals": 30})
    trained = train_policies(TrainingRun(training_scenario, "mab+earliest-finish", 0))
    assert {len(values) for values in trained.series.values()} == {30}
    assert trained.series["epsilon"][0] >= trained.series["epsilon"][-1]
    decided = [values[-1] for name, values in trained.series.items() if name.endswith(".n")]
    assert sum(decided) > 0
    responses = [values[-1] for name, values in trained.series.items() if name.startswith("response_ms.")]
    assert 0 < max(responses) < 1000  # intervals, not milliseconds
    run = simulate(SimulationRequest(Scenario.model_validate(SMALL), "mab+earliest-finish", 0), trained)
    assert run.series["epsilon"] == trained.series["epsilon"]


def test_what_was_not_known_yet_counts_as_nothing() -> None:
    assert by_name([{"a": 1.0}, {"a": 2.0, "b": 3.0}]) == {"a": [1.0, 2.0], "b": [0.0, 3.0]}


def test_experiments_share_the_simulations_that_they_have_in_common(tmp_path: Path) -> None:
    cache = RunCache(train_policies, simulate, Workers(1, "threading"))
    first = replace(EXPERIMENTS["fig16"], cases=EXPERIMENTS["fig16"].cases[:1])
    second = replace(EXPERIMENTS["fig13"], cases=EXPERIMENTS["fig13"].cases[:1], plots=())
    plan = SessionPlan([first, second], SMALL, seeds=2, policies=("expected-reward+earliest-finish",))
    for_both = simulations(plan, cache)
    done: list[Experiment] = []
    pages = list(conduct(plan, cache, tmp_path, done.append))
    assert len(done) == for_both == 2
    assert simulations(plan, cache) == 0
    assert [page.name for page in pages] == ["fig16.md", "fig13.md"]


def test_a_session_writes_a_page_for_each_experiment_that_has_runs(tmp_path: Path) -> None:
    cache = RunCache(train_policies, simulate)
    plan = plan_of("fig2", "fig19", "fig6")
    pages = list(conduct(plan, cache, tmp_path / "out", lambda _: None))
    assert [page.name for page in pages] == ["fig2.md", "fig19.md"]
    index = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((.+?)\)", index) == ["summary.md", "fig2.md", "fig19.md"]
    text = pages[0].read_text(encoding="utf-8")
    assert "| semantic+earliest-finish |" in text
    assert "| layer+earliest-finish less semantic+earliest-finish |" in text
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (tmp_path / "out" / target).is_file()


def test_an_experiments_own_scenario_holds_unless_the_command_says_otherwise() -> None:
    experiment = replace(EXPERIMENTS["fig2"], scenario={"intervals": 40, "rate": 3})
    given = {"intervals": 7, "training_intervals": 0}
    assert SessionPlan([experiment], given).scenario_of(experiment) == {**COMMON, **given, "rate": 3}
    assert SessionPlan([experiment]).scenario_of(experiment)["training_intervals"] == 100


def test_the_models_of_the_store_are_simulated_and_trained_on_pis() -> None:
    experiment = EXPERIMENTS["store"]
    plan = SessionPlan([experiment])
    requests = requests_of(experiment, plan.scenario_of(experiment), seeds=1)
    scenarios = [each.scenario for by_seed in requests.values() for each in by_seed.values()]
    training_scenarios = [
        each.training.scenario for by_seed in requests.values() for each in by_seed.values() if each.training
    ]
    assert {scenario.machines_name for scenario in (*scenarios, *training_scenarios)} == {"pi4"}
    short = scenarios[0].model_copy(update={"intervals": 5})
    names = {
        name.split(".")[1]
        for name in simulate(SimulationRequest(short, "whole+earliest-finish", 0), None).figures
        if name.startswith("by_application.")
    }
    assert names == {"cifar100", "fashionmnist", "mnist", "resnet50"}


def test_figure_two_takes_the_families_of_real_size_that_the_store_has_and_names_the_others(
    tmp_path: Path,
) -> None:
    store = ModelStore(tmp_path / "store")
    for name, shipped in (("resnet50", "fashionmnist"), ("mobilenet", "mnist"), ("other", "mnist")):
        application = ModelStore(SHIPPED_STORE).application(shipped).model_copy(update={"name": name})
        files = [ModelStore(SHIPPED_STORE).file_path(each.sha256).read_bytes() for each in application.files]
        store.save(application, files)
    experiment = adapted(EXPERIMENTS["fig2-real"], [store.root])
    assert experiment.scenario["mix"] == {"resnet50": 1.0, "mobilenet": 1.0}
    assert "ResNet50-V2 and MobileNetV2" in experiment.title
    assert "InceptionV3 is not among the networks" in experiment.question
    plan = SessionPlan([experiment], {"stores": (store.root,), "intervals": 8, "rate": 3}, seeds=2)
    (page,) = conduct(plan, RunCache(train_policies, simulate, Workers(1)), tmp_path / "out", lambda _: None)
    text = page.read_text("utf-8")
    assert "accuracy of resnet50 (%)" in text
    assert "accuracy of mobilenet (%)" in text
    assert "accuracy of other" not in text


def test_figure_two_of_all_families_leaves_none_out() -> None:
    experiment = of_families(("resnet50", "mobilenet", "inception", "other"))
    assert "ResNet50-V2, MobileNetV2 and InceptionV3 (" in experiment.title
    assert "is not among" not in experiment.question


def test_other_experiments_are_the_same_whatever_the_store_has() -> None:
    assert adapted(EXPERIMENTS["store"], [SHIPPED_STORE]) is EXPERIMENTS["store"]
    assert adapted(EXPERIMENTS["fig2-real"], [SHIPPED_STORE]) == EXPERIMENTS["fig2-real"]


def test_an_experiment_without_notes_gets_none() -> None:
    assert notes_on("absent") == ""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "splitplace.commands.main", "experiments", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_command_runs_simulations_and_prints_the_pages(tmp_path: Path) -> None:
    done = command(
        "fig2",
        *("--out", str(tmp_path), "--seeds", "2", "--intervals", "2", "--training", "2", "--jobs", "1"),
        *("--policies", "semantic+earliest-finish"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "fig2.md")]
    assert "2/2" in done.stderr  # it learns nothing, so it is not trained
    assert f"splitplace experiments fig2 --out {tmp_path}" in (tmp_path / "fig2.md").read_text("utf-8")


def test_the_command_lists_all_experiments() -> None:
    done = command("list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(EXPERIMENTS)


def test_the_list_of_experiments_is_printed_as_json() -> None:
    found = json.loads(command("list", "--json").stdout)["experiments"]
    assert {each["name"]: each["title"] for each in found} == {
        name: experiment.title for name, experiment in EXPERIMENTS.items()
    }


def test_the_pages_that_were_written_are_printed_as_json(tmp_path: Path) -> None:
    done = command(
        "fig2",
        *("--out", str(tmp_path), "--seeds", "1", "--intervals", "2", "--training", "0", "--jobs", "1"),
        *("--policies", "semantic+earliest-finish", "--json"),
    )
    assert json.loads(done.stdout) == {"pages": [str(tmp_path / "fig2.md")]}


def test_an_unknown_experiment_is_refused_with_those_that_there_are() -> None:
    done = command("fig99")
    assert done.returncode == 2
    assert "no experiment 'fig99'; known are table4, fig2, " in done.stderr


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    done = command("fig2", "--policies", "layer+nowhere", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "layer+nowhere" in done.stderr
    assert "layer+earliest-finish" in done.stderr
