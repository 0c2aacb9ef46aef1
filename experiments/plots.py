"""Draws an experiment's pictures, small enough to be kept beside the text."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import Run, Runs
from experiments.metrics import METRICS
from experiments.plan import ApplicationBars, Bars, Cell, Courses, Experiment, Lines, Plot, Stacks, TimeLines
from experiments.statistics import Estimate, estimate

_PANEL_INCHES = (4.2, 2.9)
_MOST_COLUMNS = 3
_DOTS_PER_INCH = 80
_GROUP_WIDTH = 0.8
_COLOURS = 10
_MARKERS = "osD^vP*X<>hdp"

Series = Mapping[str, Sequence[Estimate | None]]
"""By label, a value for each group."""


def draw(plot: Plot, experiment: Experiment, runs: Runs, folder: Path) -> Path:
    """Draws one picture.

    Args:
        plot: what to draw.
        experiment: whose; for the order of cases and the paper's numbers.
        runs: the values.
        folder: where to write the PNG.
    """
    with mpl.rc_context(
        {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
    ):
        match plot:
            case Bars():
                figure = _bars(plot, experiment, runs)
            case ApplicationBars():
                figure = _application_bars(plot, runs)
            case Lines():
                figure = _lines(plot, experiment, runs)
            case Stacks():
                figure = _stacks(plot, experiment, runs)
            case TimeLines():
                figure = _time_lines(plot, runs)
            case Courses():
                figure = _courses(plot, experiment, runs)
        path = folder / f"{plot.file}.png"
        # No date, no version: the same numbers give the same file.
        figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return path


def _panels(count: int, height: float = 1.0) -> tuple[Figure, list[Axes]]:
    columns = min(count, _MOST_COLUMNS)
    rows = math.ceil(count / columns)
    width, tall = _PANEL_INCHES
    figure = Figure(figsize=(width * columns, tall * height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    return figure, axes


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)


def _grouped(axes: Axes, groups: Sequence[str], series: Series) -> None:
    """Bars side by side within each group, with their intervals."""
    width = _GROUP_WIDTH / len(series)
    for index, (label, values) in enumerate(series.items()):
        places = [group + (index - (len(series) - 1) / 2) * width for group in range(len(groups))]
        known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
        axes.bar(
            [place for place, _ in known],
            [value.mean for _, value in known],
            width,
            yerr=[value.margin or 0.0 for _, value in known],
            label=label,
            color=f"C{index}",
            capsize=2,
            error_kw={"linewidth": 0.8},
        )
    turned = max(map(len, groups)) * len(groups) > 40  # noqa: PLR2004 - letters that fit below a panel
    axes.set_xticks(
        range(len(groups)), groups, rotation=45 if turned else 0, ha="right" if turned else "center"
    )
    axes.grid(visible=False, axis="x")


def _bars(plot: Bars, experiment: Experiment, runs: Runs) -> Figure:
    figure, panels = _panels(len(plot.metrics), 1.25)
    policies = runs.policies()
    for axes, key in zip(panels, plot.metrics, strict=True):
        series = {
            case.name: [runs.estimate(Cell(policy, key, case.name)) for policy in policies]
            for case in experiment.cases
        }
        _grouped(axes, policies, series)
        printed = [
            (group, experiment.printed[cell].value)
            for group, policy in enumerate(policies)
            if (cell := Cell(policy, key)) in experiment.printed
        ]
        if printed and len(series) == 1:
            axes.plot(*zip(*printed, strict=True), "kD", markersize=4, fillstyle="none", label="paper")
        axes.set_title(METRICS.of(key).heading)
    _legend(figure, panels[0])
    return figure


def _application_bars(plot: ApplicationBars, runs: Runs) -> Figure:
    figure, panels = _panels(len(plot.metrics))
    applications = runs.applications()
    policies = [policy for policy in runs.policies() if (plot.case, policy) in runs.by_seed]
    for axes, key in zip(panels, plot.metrics, strict=True):
        series = {
            policy: [
                runs.estimate(Cell(policy, f"by_application.{name}.{key}", plot.case))
                for name in applications
            ]
            for policy in policies
        }
        _grouped(axes, applications, series)
        axes.set_title(METRICS.of(key).heading)
    _legend(figure, panels[0])
    return figure


def _lines(plot: Lines, experiment: Experiment, runs: Runs) -> Figure:
    figure, panels = _panels(len(plot.metrics))
    for axes, key in zip(panels, plot.metrics, strict=True):
        for index, policy in enumerate(runs.policies()):
            known = [
                (case.x, value)
                for case in experiment.cases
                if case.x is not None and (value := runs.estimate(Cell(policy, key, case.name))) is not None
            ]
            axes.errorbar(
                [x for x, _ in known],
                [value.mean for _, value in known],
                [value.margin or 0.0 for _, value in known],
                label=policy,
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=4,
                linewidth=1,
                capsize=2,
                color=f"C{index % _COLOURS}",
                linestyle="-" if index < _COLOURS else "--",
            )
        if plot.logarithmic:
            axes.set_xscale("log")
        ticks = [case.x for case in experiment.cases if case.x is not None]
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
        axes.set_xlabel(plot.axis)
        axes.set_title(METRICS.of(key).heading)
    _legend(figure, panels[0])
    return figure


def _stacks(plot: Stacks, experiment: Experiment, runs: Runs) -> Figure:
    figure, panels = _panels(len(experiment.cases), 1.25)
    policies = runs.policies()
    for axes, case in zip(panels, experiment.cases, strict=True):
        floor = [0.0] * len(policies)
        for key in plot.metrics:
            found = [runs.estimate(Cell(policy, key, case.name)) for policy in policies]
            heights = [0.0 if value is None else value.mean for value in found]
            axes.bar(range(len(policies)), heights, _GROUP_WIDTH, floor, label=METRICS.of(key).label)
            floor = [low + high for low, high in zip(floor, heights, strict=True)]
        axes.set_xticks(range(len(policies)), policies, rotation=45, ha="right")
        axes.grid(visible=False, axis="x")
        axes.set_title(f"{case.name} ({METRICS.of(plot.metrics[0]).unit})")
    _legend(figure, panels[0])
    return figure


def _time_lines(plot: TimeLines, runs: Runs) -> Figure:
    figure, panels = _panels(len(plot.panels))
    everything = [run for by_seed in runs.by_seed.values() for run in by_seed.values()]
    for axes, (title, lines) in zip(panels, plot.panels.items(), strict=True):
        for index, (label, key) in enumerate(lines.items()):
            _course(axes, everything, key, label, index)
        axes.set_title(title)
        axes.set_xlabel("interval")
        if len(lines) > 1:
            axes.legend(frameon=False)
    return figure


def _courses(plot: Courses, experiment: Experiment, runs: Runs) -> Figure:
    figure, panels = _panels(len(experiment.cases), 1.25)
    for axes, case in zip(panels, experiment.cases, strict=True):
        for index, policy in enumerate(runs.policies()):
            _course(axes, list(runs.by_seed[case.name, policy].values()), plot.series, policy, index)
        axes.set_title(case.name)
        axes.set_xlabel(plot.axis)
    _legend(figure, panels[0])
    return figure


def _course(axes: Axes, runs: Sequence[Run], key: str, label: str, index: int) -> None:
    """One line: the mean over runs, point by point, in a band as wide as its interval."""
    series = [run.series[key] for run in runs if key in run.series]
    points = [
        estimate([value for value in values if not math.isnan(value)] or [math.nan])
        for values in zip(*series, strict=True)
    ]
    colour = f"C{index % _COLOURS}"
    style = "-" if index < _COLOURS else "--"
    axes.plot([point.mean for point in points], style, label=label, linewidth=1, color=colour)
    axes.fill_between(
        range(len(points)),
        [point.mean - (point.margin or 0) for point in points],
        [point.mean + (point.margin or 0) for point in points],
        alpha=0.15,
        linewidth=0,
        color=colour,
    )
