"""A page holds what was counted, what the paper says, and how to count it again."""

import csv
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from splitplace.experiments.figures import Run, Runs
from splitplace.experiments.page import Origin, write
from splitplace.experiments.plan import (
    ApplicationDots,
    Case,
    Cell,
    Claim,
    Courses,
    Dots,
    Experiment,
    Lines,
    PolicyRow,
    Printed,
    Stacks,
    TimeLines,
    extreme,
)
from splitplace.experiments.plots import _focus, _legend
from splitplace.experiments.statistics import Estimate

EXPERIMENT = Experiment(
    name="small",
    title="A small experiment",
    question="Which is better?",
    figures=("Figure 99",),
    policies=("rule", "random"),
    metrics=("reward", "response_intervals.mean", "cost_usd_per_task"),
    cases=(Case("few", {"rate": 2}, 2.0), Case("many", {"rate": 9}, 9.0)),
    plots=(
        Dots("dots", ("reward", "accuracy"), "Dots"),
        ApplicationDots("applications", ("reward",), "By application", "few"),
        Lines("lines", ("reward",), "Lines", "tasks per interval", logarithmic=True),
        Stacks("stacks", ("share.layer", "share.semantic"), "Parts"),
        TimeLines("training", {"epsilon": {"epsilon": "bandit.epsilon"}}, "Training"),
        Courses("course", "by_tenth", "Course", "tenth"),
    ),
    claims=(
        extreme("rule is the best of them", Cell("rule", "reward", "few"), ("rule", "random"), highest=True),
    ),
    printed={Cell("rule", "reward", "few"): Printed(94.18)},
    references=("rule",),
)

RUNS = Runs(
    {
        (case, policy): {
            seed: Run(
                {
                    "reward": reward + seed / 100,
                    "response_intervals.mean": 4.0,
                    "by_application.mnist.reward": reward,
                    "share.layer": 0.25,
                    "share.semantic": 0.75,
                    "cpu_s": 1.5,
                },
                {"bandit.epsilon": [1.0, 0.9, 0.81], "by_tenth": [50.0, math.nan, 60.0 + seed]},
            )
            for seed in range(3)
        }
        for case, policy, reward in (
            ("few", "rule", 0.9),
            ("few", "random", 0.8),
            ("many", "rule", 0.5),
            ("many", "random", 0.5),
        )
    }
)

ORIGIN = Origin(
    ("splitplace", "experiments", "small", "--out", "a folder"), "abc1234", {"intervals": 4}, 3, 0
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write(EXPERIMENT, RUNS, ORIGIN, folder, "Because a is clever.\n")
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "small.md").read_text(encoding="utf-8")


def test_the_page_says_how_to_make_it_again(page: str) -> None:
    assert "    splitplace experiments small --out 'a folder'" in page
    assert "12 runs, 3 seeds (0 to 2) of each policy in each case, 18 s of processor time" in page
    assert "all cases: intervals 4" in page
    assert "few: rate 2; many: rate 9" in page
    assert "commit abc1234" in page
    assert re.search(r"scipy \d", page)


def test_the_table_holds_means_and_intervals_and_marks_the_best(page: str) -> None:
    # .90, .91, .92: standard deviation .01, t(.975, 2) = 4.3027, margin 2.484 points
    assert "| rule | **91.00 ± 2.48** |" in page
    assert "| random | 81.00 ± 2.48 |" in page


def test_the_page_says_what_each_row_chooses_among(page: str) -> None:
    assert "Ways to split that each may choose:\n\n- layer, semantic: rule, random\n" in page
    assert "were not measured" not in page


def test_rows_with_arms_of_their_own_stand_apart_and_unmeasured_arms_are_named(tmp_path: Path) -> None:
    experiment = replace(
        EXPERIMENT, policies=("rule",), more=(PolicyRow("random", "rule", ("compressed", "whole")),)
    )
    page = write(experiment, RUNS, ORIGIN, tmp_path).read_text(encoding="utf-8")
    assert "- layer, semantic: rule\n- whole, compressed: random\n" in page
    assert "`whole` and `compressed` of the paper's workload were not measured as such." in page


def test_cases_that_change_the_choice_are_told_apart(tmp_path: Path) -> None:
    cases = (Case("few", {"arms": ("layer",)}, 2.0), Case("many", {}, 9.0))
    page = write(replace(EXPERIMENT, cases=cases), RUNS, ORIGIN, tmp_path).read_text(encoding="utf-8")
    assert "- few: layer: rule, random\n- many: layer, semantic: rule, random\n" in page


def test_figures_that_no_run_has_get_no_column(page: str) -> None:
    assert "cost" not in page


def test_the_papers_number_stands_beside_ours(page: str) -> None:
    assert "| rule, few | reward (of 100) | 94.18 | 91.00 ± 2.48 | 3.18 below the paper's (-3%)" in page


def test_a_page_begins_with_a_few_rows_and_one_picture_before_the_verdicts(tmp_path: Path) -> None:
    short = replace(EXPERIMENT, short=("rule",))
    text = write(short, RUNS, ORIGIN, tmp_path).read_text(encoding="utf-8")
    first, _, rest = text.partition("## What the numbers show")
    assert [line.split("|")[1].strip() for line in first.splitlines() if line.startswith("| r")] == ["rule"]
    assert first.count("![") == 1
    assert "| random |" in rest


def test_one_value_far_from_the_others_does_not_set_the_scale() -> None:
    values = [Estimate(mean, 0.1, 3) for mean in (90.0, 91.0, 92.0, 93.0, 94.0, 20.0)]
    axes = Figure().add_subplot()
    _focus(axes, {"here": values})
    low, high = axes.get_xlim()
    assert 85 < low < 90
    assert 94 < high < 99
    assert [text.get_text() for text in axes.texts] == ["← 20"]


def test_the_legend_has_as_many_columns_as_fit() -> None:
    figure = Figure(figsize=(4.2, 3))
    axes = figure.add_subplot()
    for number in range(6):
        axes.plot([0, 1], label=f"a policy with a long name {number}")
    _legend(figure, axes)
    assert figure.legends[0]._ncols == 1  # type: ignore[attr-defined]


def test_claims_come_with_their_verdict(page: str) -> None:
    assert (
        "| the paper | rule is the best of them | **confirmed** | rule in few less random in few: +10.00"
        in page
    )


def test_an_aim_is_reached_or_missed(tmp_path: Path) -> None:
    few = (Cell("rule", "reward", "few"), Cell("random", "reward", "few"))
    aims = (Claim("by 3", (few,), 3, source="aim"), Claim("by 30", (few,), 30, source="aim"))
    text = write(replace(EXPERIMENT, claims=aims), RUNS, ORIGIN, tmp_path).read_text(encoding="utf-8")
    assert "| our aim | by 3 | **reached** |" in text
    assert "| our aim | by 30 | **missed** |" in text


def test_the_reference_is_tested_in_every_case(folder: Path, page: str) -> None:
    assert "### reward, few" in page
    assert "1 more: [tests.csv](small/tests.csv)." in page
    with (folder / "small" / "tests.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["reference"], row["policy"]) for row in rows] == [
        ("few", "rule", "random"),
        ("many", "rule", "random"),
    ]
    assert float(rows[0]["difference"]) == pytest.approx(10)
    assert float(rows[1]["t_p"]) == 1


def test_notes_by_hand_are_kept_apart_and_marked(page: str) -> None:
    assert "## Notes\n\n*Written by hand after an earlier run; everything above is counted.*" in page
    assert "Because a is clever." in page


def test_every_picture_and_file_that_the_page_names_exists(folder: Path, page: str) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert len(targets) == 6 + 3
    for target in targets:
        assert (folder / target).stat().st_size > 0


def test_pictures_are_small_and_the_same_for_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    write(EXPERIMENT, RUNS, ORIGIN, tmp_path)
    for picture in (folder / "small").glob("*.png"):
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 100_000
        assert content == (tmp_path / "small" / picture.name).read_bytes()


def test_every_figure_of_every_run_is_in_the_csv_file(folder: Path) -> None:
    with (folder / "small" / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert (rows[1]["case"], rows[1]["policy"], rows[1]["seed"], rows[1]["reward"]) == (
        "few",
        "rule",
        "1",
        "0.91",
    )


def test_the_summary_holds_means_in_printed_units(folder: Path) -> None:
    with (folder / "small" / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "case": "few",
        "policy": "rule",
        "metric": "reward",
        "unit": "of 100",
        "mean": "91",
        "margin_95": "2.484138",
        "runs": "3",
    }
