"""Flat figures of a run, and the runs of an experiment by case, policy and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from splitplace.experiments.metrics import METRICS
from splitplace.experiments.plan import Cell
from splitplace.experiments.statistics import CONFIDENCE, Comparison, Estimate, compare, estimate
from splitplace.messages.application import VARIANT_KINDS

_APPLICATIONS = "by_application"
_DECISIONS = "decisions_by_kind"


@dataclass(frozen=True)
class Run:
    """The result of one simulation.

    Attributes:
        figures: numbers by dotted name.
        series: by dotted name, a number for each interval; empty unless the experiment draws them.
    """

    figures: Mapping[str, float]
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)


def flatten(result: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a nested result by dotted name, leaving out texts, lists and None.

    Args:
        result: a result as `splitplace simulate --json` prints it.
        prefix: put before every name, with a dot.
    """
    figures: dict[str, float] = {}
    for key, value in result.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            figures |= flatten(value, name)
        elif isinstance(value, int | float):
            figures[name] = float(value)
    return figures


def decision_shares(result: Mapping[str, Any]) -> dict[str, float]:
    """Shares of kinds of decisions, `share.layer` and so on: of all tasks, and within each application."""
    shares = _shares(result.get(_DECISIONS, {}), "")
    for application, figures in result.get(_APPLICATIONS, {}).items():
        shares |= _shares(figures.get(_DECISIONS, {}), f"{_APPLICATIONS}.{application}.")
    return shares


def _shares(decisions: Mapping[str, int], prefix: str) -> dict[str, float]:
    total = sum(decisions.values())
    return (
        {f"{prefix}share.{kind}": decisions.get(kind, 0) / total for kind in VARIANT_KINDS} if total else {}
    )


@dataclass(frozen=True)
class Runs:
    """All runs of an experiment."""

    by_seed: Mapping[tuple[str, str], Mapping[int, Run]]
    """By case and policy, then by seed."""

    def policies(self) -> list[str]:
        """Return the policies that were run, in the order of the experiment."""
        return list(dict.fromkeys(policy for _, policy in self.by_seed))

    def applications(self) -> list[str]:
        """Return the applications of the tasks, in alphabetical order; not those of the store without any."""
        figures = [run.figures for runs in self.by_seed.values() for run in runs.values()]
        names = {
            name.split(".")[1] for found in figures for name in found if name.startswith(f"{_APPLICATIONS}.")
        }
        return sorted(
            name for name in names if any(found.get(f"{_APPLICATIONS}.{name}.tasks", 1) for found in figures)
        )

    def values(self, cell: Cell) -> dict[int, float]:
        """Return the values by seed, in the metric's printed unit, without runs that lack the figure."""
        scale = METRICS.of(cell.metric).scale
        return {
            seed: run.figures[cell.metric] * scale
            for seed, run in sorted(self.by_seed.get((cell.case, cell.policy), {}).items())
            if cell.metric in run.figures
        }

    def estimate(self, cell: Cell) -> Estimate | None:
        """Return mean and interval; None if no run has the figure."""
        values = list(self.values(cell).values())
        return estimate(values) if values else None

    def compare(self, left: Cell, right: Cell, confidence: float = CONFIDENCE) -> Comparison | None:
        """Compare left minus right over the seeds that both have; None if there are none."""
        ours, others = self.values(left), self.values(right)
        seeds = sorted(ours.keys() & others.keys())
        if not seeds:
            return None
        return compare([ours[seed] for seed in seeds], [others[seed] for seed in seeds], confidence)
