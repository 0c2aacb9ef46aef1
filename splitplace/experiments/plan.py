"""What an experiment is: cases times policies times seeds, what to draw, and what the paper says about it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

BASE_CASE = "base"


@dataclass(frozen=True)
class Metric:
    """A figure that runs give.

    Attributes:
        key: its name in a run's figures, nested names joined by dots (`response_intervals.mean`).
        label: for headings.
        unit: for headings, after the label.
        scale: what the run's figure is multiplied by.
        decimals: to print.
        better: which way is good; None where neither is.
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
        name: for files and tables, unique within the experiment.
        changes: fields of the scenario that differ from the profile's, by name.
        x: where it stands on the horizontal axis of a line plot.
    """

    name: str = BASE_CASE
    changes: Mapping[str, Any] = field(default_factory=dict)
    x: float | None = None


@dataclass(frozen=True)
class PolicyRow:
    """What fills one row of every table.

    Attributes:
        name: of the row, unique within the experiment.
        policy: split+placement.
        arms: what it chooses among; None for what the case says, or else what its paper lets it choose.
    """

    name: str
    policy: str
    arms: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Cell:
    """Where a value stands: the runs of one policy (by its row's name) in one case, through one metric."""

    policy: str
    metric: str
    case: str = BASE_CASE


@dataclass(frozen=True)
class Claim:
    """A statement that runs can confirm or refute.

    It holds where for every pair the difference `left - right`, seed by seed, lies between the bounds.

    Attributes:
        text: the statement, in words.
        pairs: what is compared with what.
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
    """A number that the paper prints, in the metric's printed unit; the spread is what stands after its ±."""

    value: float
    spread: float | None = None


@dataclass(frozen=True)
class Dots:
    """A panel for each metric: a row for each policy, in it a dot with its interval for each case.

    Attributes:
        file: name of the picture, without its suffix.
        metrics: their keys.
        caption: what it shows.
    """

    file: str
    metrics: tuple[str, ...]
    caption: str


@dataclass(frozen=True)
class ApplicationDots:
    """As `Dots`, with a dot for each application in place of each case.

    The metrics are those that exist within `by_application.NAME.`, and are given without that.
    """

    file: str
    metrics: tuple[str, ...]
    caption: str
    case: str = BASE_CASE


@dataclass(frozen=True)
class Lines:
    """A panel for each metric: a line for each policy over the cases' `x`.

    Attributes:
        file: name of the picture, without its suffix.
        metrics: their keys.
        caption: what it shows.
        axis: what `x` is.
        logarithmic: whether the horizontal axis is.
    """

    file: str
    metrics: tuple[str, ...]
    caption: str
    axis: str
    logarithmic: bool = False


@dataclass(frozen=True)
class Stacks:
    """A panel for each case: for each policy the parts that make up a whole, one above the other."""

    file: str
    metrics: tuple[str, ...]
    caption: str


@dataclass(frozen=True)
class TimeLines:
    """A panel for each group of series: how figures moved from interval to interval.

    Attributes:
        file: name of the picture, without its suffix.
        panels: heading of each panel and, by label, the keys of its series.
        caption: what it shows.
    """

    file: str
    panels: Mapping[str, Mapping[str, str]]
    caption: str


@dataclass(frozen=True)
class Courses:
    """A panel for each case: a line for each policy, how one figure moved from the start to the end of a run.

    Attributes:
        file: name of the picture, without its suffix.
        series: which.
        caption: what it shows.
        axis: what the points stand for.
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
        name: on the command line.
        title: of the page.
        question: what it asks, a sentence or two.
        figures: what it repeats of the paper, as the paper numbers it; also names on the command line.
        policies: split+placement, each a row of its own name.
        metrics: keys, in the order of the tables.
        more: rows below those of `policies`, with arms of their own.
        scenario: fields of the simulator's scenario for all cases and for the training; the command's win.
        cases: settings of the simulator.
        plots: pictures.
        claims: what the paper, or an aim of ours, says of it.
        printed: the paper's numbers.
        references: the rows that all others are tested against, one after the other.
        tested: the metrics of these tests.
        seeds: how many runs of each policy in each case, unless the command says otherwise.
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
    claims: tuple[Claim, ...] = ()
    printed: Mapping[Cell, Printed] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    tested: tuple[str, ...] = ("reward",)
    seeds: int = 5

    @property
    def rows(self) -> tuple[PolicyRow, ...]:
        """All rows, in order."""
        return (*(PolicyRow(policy, policy) for policy in self.policies), *self.more)


def extreme(
    text: str, cell: Cell, others: Sequence[str], *, highest: bool, source: Literal["paper", "aim"] = "paper"
) -> Claim:
    """The claim that a policy has the highest (or lowest) value of all.

    Args:
        text: the claim in words.
        cell: the policy, with metric and case.
        others: policies that it is compared with; itself among them is passed over.
        highest: else lowest.
        source: whose claim it is.
    """
    pairs = tuple((cell, Cell(other, cell.metric, cell.case)) for other in others if other != cell.policy)
    return Claim(text, pairs, 0 if highest else -math.inf, math.inf if highest else 0, source)


def changes(text: str, policies: Sequence[str], metric: str, cases: tuple[str, str], *, rises: bool) -> Claim:
    """The claim that a metric rises (or falls) from the first case to the second for each policy."""
    first, second = cases
    pairs = tuple((Cell(policy, metric, second), Cell(policy, metric, first)) for policy in policies)
    return Claim(text, pairs, 0 if rises else -math.inf, math.inf if rises else 0)


def steady(text: str, policies: Sequence[str], metric: str, cases: tuple[str, str], within: float) -> Claim:
    """The claim that a metric differs by less than `within` between two cases, for each of the policies."""
    first, second = cases
    pairs = tuple((Cell(policy, metric, second), Cell(policy, metric, first)) for policy in policies)
    return Claim(text, pairs, -within, within)
