"""Check the paper's statements against the runs, and word the results from the numbers."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from splitplace.experiments.figures import Runs
from splitplace.experiments.metrics import METRICS
from splitplace.experiments.plan import BASE_CASE, Cell, Claim, Metric, Printed
from splitplace.experiments.statistics import CONFIDENCE, Comparison, Estimate, Verdict, holm, judge


@dataclass(frozen=True)
class Finding:
    """A claim and its verdict.

    Attributes:
        claim: the statement.
        verdict: None if the runs lack the figures that the claim compares.
        sentence: the numbers that decided, in words.
    """

    claim: Claim
    verdict: Verdict | None
    sentence: str


@dataclass(frozen=True)
class Tested:
    """The test of a policy against the reference.

    Attributes:
        policy: the policy.
        comparison: the reference minus the policy, in the metric's unit.
        t_test: p of the t-test, with Holm's correction over all policies of the table.
        wilcoxon: p of Wilcoxon's test, corrected likewise.
    """

    policy: str
    comparison: Comparison
    t_test: float | None
    wilcoxon: float | None


def number(value: float, metric: Metric) -> str:
    """Format a value as on pages."""
    return f"{value:.{metric.decimals}f}"


def with_margin(estimate: Estimate | None, metric: Metric) -> str:
    """Format mean ± half the interval; a dash if there is no estimate."""
    if estimate is None:
        return "–"
    margin = "" if estimate.margin is None else f" ± {number(estimate.margin, metric)}"
    return f"{number(estimate.mean, metric)}{margin}"


def check(claim: Claim, runs: Runs, unlike: Collection[str] = ()) -> Finding:
    """Decide a claim of the paper or an aim.

    A claim of the paper is about its models. Where the verdict depends on a row that stands for another
    model, it is `not comparable`.

    Args:
        claim: the statement.
        runs: the runs.
        unlike: rows whose arms are not those of the paper's model.
    """
    found = _check(claim, runs)
    involved = {cell.policy for pair in claim.pairs for cell in pair} & set(unlike)
    if claim.source != "paper" or not involved or found.verdict is None:
        return found
    fair = tuple(pair for pair in claim.pairs if not {cell.policy for cell in pair} & involved)
    known = _check(replace(claim, pairs=fair), runs) if fair else None
    if known is not None and known.verdict == found.verdict:
        return found
    names = " and ".join(sorted(involved))
    others = f"; without them {_WORDS[known.verdict]}: {known.sentence}" if known and known.verdict else ""
    return Finding(claim, "not comparable", f"arms of {names} are not the paper's{others}")


_WORDS: dict[Verdict, str] = {"holds": "confirmed", "fails": "refuted", "undecided": "undecided"}


def _check(claim: Claim, runs: Runs) -> Finding:
    """Decide a claim whatever its rows stand for.

    A claim about several pairs holds if every pair holds, and fails if one fails. The intervals together have
    the usual confidence (Bonferroni).
    """
    confidence = 1 - (1 - CONFIDENCE) / len(claim.pairs)
    compared = [(left, right, runs.compare(left, right, confidence)) for left, right in claim.pairs]
    known = [(left, right, found) for left, right, found in compared if found is not None]
    if len(known) < len(compared):
        return Finding(claim, None, "no runs have all of these figures")
    verdicts = [judge(found.difference, claim.low, claim.high) for _, _, found in known]
    verdict = min(verdicts, key=("fails", "undecided", "holds").index)
    decisive = [pair for pair, its in zip(known, verdicts, strict=True) if its == verdict]
    worst = min(decisive, key=lambda pair: _clearance(pair[2].difference, claim))
    which: dict[Verdict, str] = {
        "holds": f"the narrowest of {len(known)} comparisons, which all hold",
        "fails": f"the worst of the {len(decisive)} of {len(known)} comparisons that fail",
        "undecided": f"the worst of the {len(decisive)} of {len(known)} comparisons that stay undecided",
    }
    return Finding(claim, verdict, _sentence(*worst) + (f"; {which[verdict]}" if len(known) > 1 else ""))


def _clearance(difference: Estimate, claim: Claim) -> float:
    """Return how far inside the bounds a difference lies; negative outside."""
    return min(difference.mean - claim.low, claim.high - difference.mean)


def _sentence(left: Cell, right: Cell, found: Comparison) -> str:
    metric = METRICS.of(left.metric)
    difference = found.difference
    interval = (
        "one run only"
        if difference.margin is None
        else f"interval {number(difference.low, metric)} to {number(difference.high, metric)}"
    )
    sign = f"{difference.mean:+.{metric.decimals}f}"
    return f"{_name(left, right)} less {_name(right, left)}: {sign} ({interval})"


def _name(cell: Cell, other: Cell) -> str:
    parts = [cell.policy]
    if cell.case != BASE_CASE and (cell.case != other.case or cell.policy != other.policy):
        parts.append(f"in {cell.case}")
    if cell.metric != other.metric:
        parts.append(f"({METRICS.of(cell.metric).label})")
    return " ".join(parts)


def beside_paper(cell: Cell, printed: Printed, estimate: Estimate) -> str:
    """Say how much our figure differs from the paper's, and whether the spreads explain it."""
    metric = METRICS.of(cell.metric)
    difference = estimate.mean - printed.value
    share = f" ({difference / printed.value:+.0%})" if printed.value else ""
    if abs(difference) < 0.5 * 10**-metric.decimals:
        return "the same as printed"
    reach = (estimate.margin or 0.0) + (printed.spread or 0.0)
    where = "within" if abs(difference) <= reach else "outside"
    spreads = "both spreads" if printed.spread is not None else "our interval"
    direction = "above" if difference > 0 else "below"
    return f"{number(abs(difference), metric)} {direction} the paper's{share}, {where} {spreads}"


def against_reference(runs: Runs, reference: str, metric: str, case: str) -> list[Tested]:
    """Test the reference against every other policy, paired by seed.

    Args:
        runs: runs of the experiment.
        reference: the policy that all others are compared with.
        metric: key of the metric.
        case: name of the case.

    Returns:
        The tests in the order of the policies, without policies that lack the figure.
    """
    ours = Cell(reference, metric, case)
    compared = [
        (policy, found)
        for policy in runs.policies()
        if policy != reference and (found := runs.compare(ours, Cell(policy, metric, case))) is not None
    ]
    t_tests = _adjusted([found.t_test for _, found in compared])
    ranks = _adjusted([found.wilcoxon for _, found in compared])
    return [
        Tested(policy, found, t_test, rank)
        for (policy, found), t_test, rank in zip(compared, t_tests, ranks, strict=True)
    ]


def _adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    known = [p for p in p_values if p is not None]
    if len(known) < len(p_values):
        return [None] * len(p_values)
    return list(holm(known))


def best(runs: Runs, metric: str, case: str, *, among: Sequence[str]) -> str:
    """Say which policy is best by a metric, and which do not differ significantly from it."""
    described = METRICS.of(metric)
    if described.better is None:
        raise ValueError(f"neither direction of {metric} is better")
    means = {
        policy: found.mean
        for policy in among
        if (found := runs.estimate(Cell(policy, metric, case))) is not None
    }
    if not means:
        return f"No run gave {described.label}."
    sign = 1 if described.better == "higher" else -1
    winner = max(means, key=lambda policy: sign * means[policy])
    alike = [
        tested.policy
        for tested in against_reference(runs, winner, metric, case)
        if tested.policy in means and not (tested.t_test is not None and tested.t_test < 1 - CONFIDENCE)
    ]
    value = f"{with_margin(runs.estimate(Cell(winner, metric, case)), described)} {described.unit}".strip()
    tie = f"; not to be told from it (Holm-adjusted p ≥ .05): {', '.join(alike)}" if alike else ""
    return f"Best {described.label}: **{winner}**, {value}{tie}."


def p_value(p: float | None) -> str:
    """Format p as in tables."""
    if p is None or math.isnan(p):
        return "–"
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")  # noqa: PLR2004 - the smallest printed
