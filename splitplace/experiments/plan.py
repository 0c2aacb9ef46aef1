"""What an experiment is: cases, policies and seeds, plots, and the paper's claims about it."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

BASE_CASE = "base"


@dataclass(frozen=True)
class Metric:
    """A figure of a run, and how to print it.

    Attributes:
        key: its name in a run's figures, nested names joined by dots (`response_intervals.mean`).
        label: label in headings.
        unit: unit in headings, after the label.
        scale: factor from the run's figure to the printed unit.
        decimals: number of printed decimals.
        better: which direction is better; None if neither is.
    """

    key: str
    label: str
    unit: str = ""
    scale: float = 1.0
    decimals: int = 2
    better: Literal["higher", "lower"] | None = None

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True)
class Case:
    """One setting of the simulator.

    Attributes:
        name: name for files and tables, unique within the experiment.
        changes: fields of the scenario that differ from the profile's, by name.
        x: position on the horizontal axis of a line plot.
    """

    name: str = BASE_CASE
    changes: Mapping[str, Any] = field(default_factory=dict)
    x: float | None = None


@dataclass(frozen=True)
class PolicyRow:
    """One row of every table: a policy and the arms that it may choose.

    Attributes:
        name: name of the row, unique within the experiment.
        policy: split+placement.
        arms: the arms; None = those of the case, or else the policy's own.
        trained: whether it trains before the runs, if the experiment trains at all.
    """

    name: str
    policy: str
    arms: tuple[str, ...] | None = None
    trained: bool = True


@dataclass(frozen=True)
class Cell:
    """Address of a value: the policy (by the name of its row), the metric and the case."""

    policy: str
    metric: str
    case: str = BASE_CASE


@dataclass(frozen=True)
class Claim:
    """A statement that runs can confirm or refute.

    It holds if, for every pair, the difference `left - right`, paired by seed, lies between the bounds.

    Attributes:
        text: the statement, in words.
        pairs: the cells to compare, as `(left, right)`.
        low: what every difference must exceed, in the metric's printed unit.
        high: what every difference must stay below.
        source: whose statement it is.
    """

    text: str
    pairs: tuple[tuple[Cell, Cell], ...]
    low: float = -math.inf
    high: float = math.inf
    source: Literal["paper", "aim"] = "paper"


@dataclass(frozen=True)
class Printed:
    """A number that the paper prints, in the metric's printed unit. The spread is the number after ±."""

    value: float
    spread: float | None = None


@dataclass(frozen=True)
class Dots:
    """A panel for each metric, with a row for each policy and a dot with its interval for each case.

    Attributes:
        file: name of the picture without suffix.
        metrics: keys of the metrics.
        caption: caption of the picture.
    """

    file: str
    metrics: tuple[str, ...]
    caption: str


@dataclass(frozen=True)
class ApplicationDots:
    """Like `Dots`, with a dot for each application instead of each case.

    The metrics are those below `by_application.NAME.`, given without this prefix.
    """

    file: str
    metrics: tuple[str, ...]
    caption: str
    case: str = BASE_CASE


@dataclass(frozen=True)
class Lines:
    """A panel for each metric: a line for each policy over the cases' `x`.

    Attributes:
        file: name of the picture without suffix.
        metrics: keys of the metrics.
        caption: caption of the picture.
        axis: label of the horizontal axis.
        logarithmic: whether the horizontal axis is logarithmic.
    """

    file: str
    metrics: tuple[str, ...]
    caption: str
    axis: str
    logarithmic: bool = False


@dataclass(frozen=True)
class Stacks:
    """A panel for each case, with a stacked bar for each policy."""

    file: str
    metrics: tuple[str, ...]
    caption: str


@dataclass(frozen=True)
class TimeLines:
    """A panel for each group of series, over the intervals of the training.

    Attributes:
        file: name of the picture without suffix.
        panels: for each heading of a panel, the keys of its series by label.
        caption: caption of the picture.
    """

    file: str
    panels: Mapping[str, Mapping[str, str]]
    caption: str


@dataclass(frozen=True)
class Courses:
    """A panel for each case, with a line for each policy over the course of a run.

    Attributes:
        file: name of the picture without suffix.
        series: key of the series.
        caption: caption of the picture.
        axis: label of the horizontal axis.
    """

    file: str
    series: str
    caption: str
    axis: str


Plot = Dots | ApplicationDots | Lines | Stacks | TimeLines | Courses


@dataclass(frozen=True)
class Experiment:
    """One page.

    Attributes:
        name: name on the command line.
        title: title of the page.
        question: the question, in a sentence or two.
        figures: figures and tables of the paper that it repeats; also names on the command line.
        policies: policies as split+placement; each is a row of the same name.
        metrics: keys of the metrics, in the order of the tables.
        more: further rows, with arms of their own.
        scenario: fields of the scenario for all cases and the training; options of the command override them.
        cases: settings of the simulator.
        plots: pictures.
        short: rows of the first table, six or so; empty = all.
        claims: statements of the paper, or aims of ours.
        printed: the paper's numbers.
        references: rows that all others are tested against.
        tested: metrics of these tests.
        seeds: default number of runs of each policy in each case.
        for_networks: returns the experiment with the networks of these names; None = it is always the same.
    """

    name: str
    title: str
    question: str
    policies: tuple[str, ...]
    metrics: tuple[str, ...]
    figures: tuple[str, ...] = ()
    more: tuple[PolicyRow, ...] = ()
    scenario: Mapping[str, Any] = field(default_factory=dict)
    cases: tuple[Case, ...] = (Case(),)
    plots: tuple[Plot, ...] = ()
    short: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    printed: Mapping[Cell, Printed] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    tested: tuple[str, ...] = ("reward",)
    seeds: int = 5
    for_networks: Callable[[Collection[str]], "Experiment"] | None = None

    @property
    def rows(self) -> tuple[PolicyRow, ...]:
        """All rows, in order."""
        return (*(PolicyRow(policy, policy) for policy in self.policies), *self.more)


def extreme(
    text: str, cell: Cell, others: Sequence[str], *, highest: bool, source: Literal["paper", "aim"] = "paper"
) -> Claim:
    """Claim that a policy has the highest (or lowest) value of all.

    Args:
        text: the claim in words.
        cell: the policy, with metric and case.
        others: policies to compare with; the policy itself is skipped.
        highest: whether the value is claimed to be the highest, else the lowest.
        source: whose claim it is.
    """
    pairs = tuple((cell, Cell(other, cell.metric, cell.case)) for other in others if other != cell.policy)
    return Claim(text, pairs, 0 if highest else -math.inf, math.inf if highest else 0, source)


def changes(text: str, policies: Sequence[str], metric: str, cases: tuple[str, str], *, rises: bool) -> Claim:
    """Claim that a metric rises (or falls) from the first case to the second for each policy."""
    first, second = cases
    pairs = tuple((Cell(policy, metric, second), Cell(policy, metric, first)) for policy in policies)
    return Claim(text, pairs, 0 if rises else -math.inf, math.inf if rises else 0)


def steady(text: str, policies: Sequence[str], metric: str, cases: tuple[str, str], within: float) -> Claim:
    """Claim that a metric differs by less than `within` between two cases, for each policy."""
    first, second = cases
    pairs = tuple((Cell(policy, metric, second), Cell(policy, metric, first)) for policy in policies)
    return Claim(text, pairs, -within, within)
