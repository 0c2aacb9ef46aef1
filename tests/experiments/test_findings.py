"""Sentences follow from the numbers: with other numbers they say something else."""

import math

import pytest

from splitplace.experiments.findings import against_reference, beside_paper, best, check, p_value
from splitplace.experiments.plan import Cell, Claim, Printed, changes, extreme, steady
from splitplace.experiments.statistics import Estimate
from tests.support.experiment_runs import rewards, runs_of

CLEAR = [0.90, 0.91, 0.92, 0.90, 0.91]
LOWER = [0.80, 0.82, 0.81, 0.80, 0.82]
SIMILAR = [0.91, 0.90, 0.92, 0.91, 0.90]


def highest(policy: str, *others: str) -> Claim:
    return extreme("it is the highest", Cell(policy, "reward"), (policy, *others), highest=True)


def test_a_claim_holds_where_the_whole_interval_says_so() -> None:
    finding = check(highest("a", "b"), rewards(a=CLEAR, b=LOWER))
    assert finding.verdict == "holds"
    assert finding.sentence == "a less b: +9.80 (interval 8.76 to 10.84)"


def test_the_same_claim_of_the_lower_policy_fails() -> None:
    assert check(highest("b", "a"), rewards(a=CLEAR, b=LOWER)).verdict == "fails"


def test_noise_leaves_a_claim_undecided() -> None:
    assert check(highest("a", "b"), rewards(a=CLEAR, b=SIMILAR)).verdict == "undecided"


def test_one_comparison_that_fails_refutes_a_claim_about_all() -> None:
    finding = check(highest("b", "a", "c"), rewards(a=CLEAR, b=LOWER, c=[0.1] * 5))
    assert finding.verdict == "fails"
    assert finding.sentence.startswith("b less a: -9.80")
    assert finding.sentence.endswith("the worst of the 1 of 2 comparisons that fail")


def test_a_claim_about_all_that_holds_names_its_narrowest_comparison() -> None:
    finding = check(highest("a", "b", "c"), rewards(a=CLEAR, b=LOWER, c=[0.1] * 5))
    assert finding.verdict == "holds"
    assert finding.sentence.startswith("a less b: ")
    assert finding.sentence.endswith("the narrowest of 2 comparisons, which all hold")


def test_more_comparisons_widen_the_interval_of_each() -> None:
    alone = check(highest("a", "b"), rewards(a=CLEAR, b=LOWER)).sentence
    together = check(highest("a", "b", "c"), rewards(a=CLEAR, b=LOWER, c=[0.1] * 5)).sentence
    assert together.partition(";")[0] != alone


def test_a_claim_of_the_paper_that_another_model_decides_is_not_comparable() -> None:
    claim = highest("b", "a", "c")
    runs = rewards(a=CLEAR, b=LOWER, c=[0.1, 0.1, 0.2, 0.1, 0.1])
    found = check(claim, runs, unlike={"a"})
    assert found.verdict == "not comparable"
    assert found.sentence.startswith("arms of a are not the paper's; without them confirmed: b less c: ")
    assert check(claim, runs, unlike={"c"}).verdict == "fails"


def test_a_claim_of_the_paper_about_nothing_but_other_models_is_not_comparable() -> None:
    found = check(highest("a", "b"), rewards(a=CLEAR, b=LOWER), unlike={"b"})
    assert (found.verdict, found.sentence) == ("not comparable", "arms of b are not the paper's")


def test_an_aim_of_ours_is_about_the_rows_as_they_are() -> None:
    aim = extreme("a", Cell("a", "reward"), ("b",), highest=True, source="aim")
    assert check(aim, rewards(a=CLEAR, b=LOWER), unlike={"a"}).verdict == "holds"


def test_a_claim_about_a_policy_that_was_not_run_has_no_verdict() -> None:
    assert check(highest("a", "absent"), rewards(a=CLEAR)).verdict is None


def test_a_single_run_decides_nothing() -> None:
    finding = check(highest("a", "b"), rewards(a=[0.9], b=[0.1]))
    assert finding.verdict == "undecided"
    assert "one run only" in finding.sentence


def test_changes_and_steadiness_compare_the_second_case_with_the_first() -> None:
    runs = runs_of(
        {
            ("few", "a"): {"reward": CLEAR, "accuracy": [0.93, 0.931, 0.929, 0.93, 0.931]},
            ("many", "a"): {"reward": LOWER, "accuracy": [0.931, 0.93, 0.93, 0.931, 0.93]},
        }
    )
    falls = changes("it falls", ["a"], "reward", ("few", "many"), rises=False)
    stays = steady("it stays", ["a"], "accuracy", ("few", "many"), within=1)
    assert check(falls, runs).verdict == "holds"
    assert check(falls, runs).sentence.startswith("a in many less a in few: -9.80")
    assert check(stays, runs).verdict == "holds"


def test_metrics_that_differ_are_named() -> None:
    runs = runs_of(
        {("base", "a"): {"by_application.x.accuracy": [0.9] * 3, "by_application.y.accuracy": [0.5] * 3}}
    )
    claim = Claim(
        "x is easier",
        ((Cell("a", "by_application.x.accuracy"), Cell("a", "by_application.y.accuracy")),),
        low=0,
    )
    assert check(claim, runs).sentence.startswith("a (accuracy of x) less a (accuracy of y): +40.00")


@pytest.mark.parametrize(
    ("ours", "sentence"),
    [
        (Estimate(3.0, 0.2, 5), "1.50 below the paper's (-33%), outside both spreads"),
        (Estimate(5.0, 0.2, 5), "0.50 above the paper's (+11%), within both spreads"),
        (Estimate(4.5, 0.2, 5), "the same as printed"),
        (Estimate(6.0, None, 1), "1.50 above the paper's (+33%), outside both spreads"),
    ],
)
def test_a_difference_from_the_paper_is_put_into_words(ours: Estimate, sentence: str) -> None:
    cell = Cell("mab+daso", "response_intervals.mean")
    assert beside_paper(cell, Printed(4.5, 1.0), ours) == sentence


def test_without_a_printed_spread_only_our_interval_counts() -> None:
    assert beside_paper(Cell("a", "reward"), Printed(94.18), Estimate(94.0, 0.3, 5)).endswith(
        "within our interval"
    )


def test_the_reference_is_tested_against_each_other_policy_with_holms_correction() -> None:
    found = against_reference(rewards(a=CLEAR, b=LOWER, c=SIMILAR), "a", "reward", "base")
    assert [tested.policy for tested in found] == ["b", "c"]
    against_b, against_c = found
    assert against_b.comparison.t_test is not None
    assert against_b.t_test == pytest.approx(2 * against_b.comparison.t_test)  # the smaller of two
    assert against_c.t_test == against_c.comparison.t_test


def test_the_best_is_named_with_those_that_cannot_be_told_from_it() -> None:
    sentence = best(rewards(a=CLEAR, b=LOWER, c=SIMILAR), "reward", "base", among=["a", "b", "c"])
    assert sentence.startswith("Best reward: **a**, 90.80 ± 1.04 of 100; not to be told from it")
    assert sentence.endswith(": c.")


def test_the_lowest_is_the_best_where_lower_is_better() -> None:
    runs = runs_of(
        {
            ("base", name): {"response_intervals.mean": numbers}
            for name, numbers in (("a", [1.0, 1.1, 1.0]), ("b", [5.0, 5.1, 5.0]))
        }
    )
    assert best(runs, "response_intervals.mean", "base", among=["a", "b"]) == (
        "Best response: **a**, 1.03 ± 0.14 intervals."
    )


def test_the_best_of_a_figure_that_knows_no_better_is_not_asked_for() -> None:
    with pytest.raises(ValueError, match="neither"):
        best(rewards(a=CLEAR), "share.layer", "base", among=["a"])


@pytest.mark.parametrize(
    ("p", "printed"),
    [(None, "–"), (math.nan, "–"), (0.0004, "< .001"), (0.0312, ".031"), (1.0, "1.000")],
)
def test_p_values_are_printed_to_three_digits(p: float | None, printed: str) -> None:
    assert p_value(p) == printed
