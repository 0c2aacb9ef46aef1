"""Results become flat figures, and figures become values by seed."""

import pytest

from splitplace.experiments.figures import decision_shares, flatten
from splitplace.experiments.plan import Cell
from tests.support.experiment_runs import runs_of


def test_nested_figures_get_dotted_names_and_what_is_no_number_is_left_out() -> None:
    result = {"reward": 0.5, "tasks": {"arrived": 3}, "policy": "mab+daso", "wait": None, "records": [1, 2]}
    assert flatten(result) == {"reward": 0.5, "tasks.arrived": 3.0}


def test_shares_count_kinds_of_variants_in_all_and_in_each_application() -> None:
    result = {
        "decisions_by_kind": {"layer": 3, "semantic": 1},
        "by_application": {"mnist": {"decisions_by_kind": {"whole": 4}}, "idle": {"decisions_by_kind": {}}},
    }
    shares = decision_shares(result)
    assert shares["share.layer"] == 0.75
    assert shares["share.semantic"] == 0.25
    assert shares["share.compressed"] == 0
    assert shares["by_application.mnist.share.whole"] == 1
    assert not [name for name in shares if "idle" in name]


def test_values_are_in_the_printed_unit_and_in_the_order_of_seeds() -> None:
    runs = runs_of({("base", "a"): {"reward": [0.5, 0.75]}})
    assert runs.values(Cell("a", "reward")) == {0: 50.0, 1: 75.0}


def test_what_was_not_run_has_no_estimate() -> None:
    runs = runs_of({("base", "a"): {"reward": [0.5, 0.75]}})
    assert runs.estimate(Cell("a", "accuracy")) is None
    assert runs.estimate(Cell("b", "reward")) is None
    assert runs.compare(Cell("a", "reward"), Cell("b", "reward")) is None


def test_a_comparison_uses_the_seeds_that_both_have() -> None:
    runs = runs_of({("base", "a"): {"reward": [0.5, 0.6, 0.9]}, ("base", "b"): {"reward": [0.4, 0.5]}})
    found = runs.compare(Cell("a", "reward"), Cell("b", "reward"))
    assert found is not None
    assert found.difference.mean == pytest.approx(10)
    assert found.difference.count == 2


def test_applications_are_found_in_the_names_of_figures() -> None:
    runs = runs_of({("base", "a"): {"by_application.b.reward": [1], "by_application.a.share.layer": [1]}})
    assert runs.applications() == ["a", "b"]


def test_applications_without_a_task_are_left_out() -> None:
    figures = {"a": 3, "b": 0}
    runs = runs_of({("base", "p"): {f"by_application.{name}.tasks": [n] for name, n in figures.items()}})
    assert runs.applications() == ["a"]
