"""Means with confidence intervals, and paired comparisons between policies that met the same arrivals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from scipy import stats

CONFIDENCE = 0.95
"""Confidence of the printed intervals, unless a page says otherwise."""

Verdict = Literal["holds", "fails", "undecided", "not comparable"]
"""`not comparable`: it depends on a model that is not the one of the statement."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval.

    Attributes:
        mean: mean of the values.
        margin: half the width of the t interval; None for a single value.
        count: number of values.
    """

    mean: float
    margin: float | None
    count: int

    @property
    def low(self) -> float:
        """Lower end of the interval; minus infinity if the margin is unknown."""
        return self.mean - (math.inf if self.margin is None else self.margin)

    @property
    def high(self) -> float:
        """Upper end of the interval; infinity if the margin is unknown."""
        return self.mean + (math.inf if self.margin is None else self.margin)


@dataclass(frozen=True)
class Comparison:
    """Left minus right, paired by seed.

    Attributes:
        difference: mean of the differences and its interval.
        t_test: two-sided p of the paired t-test; None for a single pair.
        wilcoxon: two-sided p of the Wilcoxon signed-rank test; None for a single pair. With n pairs it is
            never below `2 / 2**n`: five seeds cannot give less than .0625.
    """

    difference: Estimate
    t_test: float | None
    wilcoxon: float | None


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Estimate the mean of independent values with Student's t interval.

    Args:
        values: one value per run.
        confidence: probability that the interval covers the true mean, in (0, 1).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to estimate a mean from")
    count = len(values)
    if count == 1:
        return Estimate(values[0], None, 1)
    quantile = float(stats.t.ppf((1 + confidence) / 2, count - 1))
    return Estimate(fmean(values), quantile * stdev(values) / math.sqrt(count), count)


def compare(left: Sequence[float], right: Sequence[float], confidence: float = CONFIDENCE) -> Comparison:
    """Compare two policies (or cases) run by run.

    Args:
        left: one value per seed.
        right: values of the same seeds in the same order.
        confidence: confidence of the interval of the difference.

    Raises:
        ValueError: the lengths differ, or there are no values.
    """
    differences = [a - b for a, b in zip(left, right, strict=True)]
    difference = estimate(differences, confidence)
    if len(differences) == 1:
        return Comparison(difference, None, None)
    if not any(differences):
        return Comparison(difference, 1.0, 1.0)
    return Comparison(difference, _t_test(difference, differences), float(stats.wilcoxon(differences).pvalue))


def _t_test(difference: Estimate, differences: Sequence[float]) -> float:
    error = stdev(differences) / math.sqrt(len(differences))
    if error == 0:
        return 0.0  # the same difference every time
    return float(2 * stats.t.sf(abs(difference.mean) / error, len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Apply Holm's correction, which bounds the chance of any false finding among all tests.

    Args:
        p_values: p-values of tests that are interpreted together.

    Returns:
        Adjusted values in the given order, each at most 1.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def judge(difference: Estimate, low: float, high: float) -> Verdict:
    """Decide whether a difference lies between two bounds.

    Args:
        difference: with its interval.
        low: what it must exceed; minus infinity for no bound.
        high: what it must stay below; infinity for no bound.

    Returns:
        `holds` if the whole interval lies between the bounds, `fails` if none of it does, else
        `undecided`.
    """
    if low < difference.low and difference.high < high:
        return "holds"
    if difference.high < low or difference.low > high:
        return "fails"
    return "undecided"
