"""Tables: in Markdown for the page, and as CSV for further analysis."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from splitplace.experiments.figures import Runs
from splitplace.experiments.findings import Finding, Tested, beside_paper, number, p_value, with_margin
from splitplace.experiments.metrics import METRICS
from splitplace.experiments.plan import BASE_CASE, Cell, Experiment
from splitplace.experiments.statistics import Verdict

UPPER_BOUND_ROW = "upper bound"
"""Beginning of the names of rows that are no policies."""

_VERDICTS: dict[Verdict | None, str] = {
    "holds": "**confirmed**",
    "fails": "**refuted**",
    "undecided": "undecided",
    "not comparable": "not comparable",
    None: "not run",
}
_AIMS: dict[Verdict | None, str] = {**_VERDICTS, "holds": "**reached**", "fails": "**missed**"}


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def results(
    experiment: Experiment, runs: Runs, case: str, *, rows_of: Sequence[str] = (), columns: int | None = None
) -> str:
    """Return the results of one case: a row per policy, a column per metric, the best means in bold.

    Args:
        experiment: the experiment.
        runs: its runs.
        case: name of the case.
        rows_of: rows to show; empty = all.
        columns: number of metrics to show; None = all.
    """
    metrics = [key for key in experiment.metrics if _present(runs, case, key)][:columns]
    winners = {key: _winner(runs, case, key) for key in metrics}
    rows = []
    for policy in runs.policies():
        if (case, policy) not in runs.by_seed or (rows_of and policy not in rows_of):
            continue
        cells = [
            (key, with_margin(runs.estimate(Cell(policy, key, case)), METRICS.of(key))) for key in metrics
        ]
        rows.append([policy, *(f"**{text}**" if winners[key] == policy else text for key, text in cells)])
    return markdown(["policy", *(METRICS.of(key).heading for key in metrics)], rows)


def _present(runs: Runs, case: str, key: str) -> bool:
    return any(runs.estimate(Cell(policy, key, case)) is not None for policy in runs.policies())


def _winner(runs: Runs, case: str, key: str) -> str | None:
    better = METRICS.of(key).better
    means = {
        policy: estimate.mean
        for policy in runs.policies()
        if not policy.startswith(UPPER_BOUND_ROW)
        and (estimate := runs.estimate(Cell(policy, key, case))) is not None
    }
    if better is None or not means:
        return None
    return (max if better == "higher" else min)(means, key=means.__getitem__)


def by_application(runs: Runs, metrics: Sequence[str], case: str) -> str:
    """Return a table with a row per policy and a column per metric of each application."""
    keys = [
        (application, f"by_application.{application}.{metric}")
        for metric in metrics
        for application in runs.applications()
    ]
    header = ["policy", *(METRICS.of(key).heading for _, key in keys)]
    rows = [
        [
            policy,
            *(with_margin(runs.estimate(Cell(policy, key, case)), METRICS.of(key)) for _, key in keys),
        ]
        for policy in runs.policies()
        if (case, policy) in runs.by_seed
    ]
    return markdown(header, rows)


def paper(experiment: Experiment, runs: Runs) -> str:
    """Return the paper's numbers beside ours, with a sentence on each difference."""
    rows = []
    for cell, printed in experiment.printed.items():
        estimate = runs.estimate(cell)
        if estimate is None:
            continue
        metric = METRICS.of(cell.metric)
        spread = f" ± {number(printed.spread, metric)}" if printed.spread is not None else ""
        rows.append(
            [
                _where(cell),
                metric.heading,
                f"{number(printed.value, metric)}{spread}",
                with_margin(estimate, metric),
                beside_paper(cell, printed, estimate),
            ]
        )
    return markdown(["policy", "metric", "paper", "here", "difference"], rows) if rows else ""


def _where(cell: Cell) -> str:
    return cell.policy if cell.case == BASE_CASE else f"{cell.policy}, {cell.case}"


def findings(found: Sequence[Finding]) -> str:
    """Return a table of claims and their verdicts."""
    rows = [
        [
            "the paper" if finding.claim.source == "paper" else "our aim",
            finding.claim.text,
            (_VERDICTS if finding.claim.source == "paper" else _AIMS)[finding.verdict],
            finding.sentence,
        ]
        for finding in found
    ]
    return markdown(["who", "says", "here", "because"], rows)


def tests(found: Sequence[Tested], reference: str, metric: str) -> str:
    """Return a table of tests of the reference against every other policy."""
    described = METRICS.of(metric)
    rows = [
        [
            f"{reference} less {tested.policy}",
            with_margin(tested.comparison.difference, described),
            p_value(tested.comparison.t_test),
            p_value(tested.t_test),
            p_value(tested.comparison.wilcoxon),
            p_value(tested.wilcoxon),
        ]
        for tested in found
    ]
    header = [described.heading, "difference", "paired t: p", "Holm", "Wilcoxon: p", "Holm"]
    return markdown(header, rows)


def write_tests(path: Path, found: Iterable[tuple[str, str, str, Sequence[Tested]]]) -> None:
    """Write the tests of every reference by case, reference and metric, in printed units."""
    rows = [
        [
            case,
            reference,
            tested.policy,
            metric,
            *map(_plain, (tested.comparison.difference.mean, tested.comparison.difference.margin)),
            *map(_plain, (tested.comparison.t_test, tested.t_test)),
            *map(_plain, (tested.comparison.wilcoxon, tested.wilcoxon)),
        ]
        for case, reference, metric, group in found
        for tested in group
    ]
    header = ["case", "reference", "policy", "metric", "difference", "margin_95"]
    _write(path, [*header, "t_p", "t_holm", "wilcoxon_p", "wilcoxon_holm"], rows)


def write_runs(path: Path, runs: Runs) -> None:
    """Write every figure of every run, one row per run."""
    columns = sorted(
        {name for by_seed in runs.by_seed.values() for run in by_seed.values() for name in run.figures}
    )
    rows = [
        [case, policy, seed, *(_plain(run.figures.get(name)) for name in columns)]
        for (case, policy), by_seed in runs.by_seed.items()
        for seed, run in sorted(by_seed.items())
    ]
    _write(path, ["case", "policy", "seed", *columns], rows)


def write_summary(path: Path, runs: Runs, metrics: Sequence[str]) -> None:
    """Write mean and interval of each metric for each policy in each case, in printed units."""
    rows = [
        [case, policy, key, METRICS.of(key).unit, _plain(found.mean), _plain(found.margin), found.count]
        for case, policy in runs.by_seed
        for key in metrics
        if (found := runs.estimate(Cell(policy, key, case))) is not None
    ]
    _write(path, ["case", "policy", "metric", "unit", "mean", "margin_95", "runs"], rows)


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
