"""Draw an experiment's pictures, small enough to be kept beside the text."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from splitplace.experiments.figures import Run, Runs
from splitplace.experiments.metrics import METRICS
from splitplace.experiments.plan import (
    ApplicationDots,
    Cell,
    Courses,
    Dots,
    Experiment,
    Lines,
    Plot,
    Stacks,
    TimeLines,
)
from splitplace.experiments.statistics import Estimate, estimate

_PANEL_INCHES = (4.2, 2.9)
_MOST_COLUMNS = 3
_DOTS_PER_INCH = 110
_CHARACTERS_PER_INCH = 14
"""How much text of a legend fits into an inch."""
_FENCE = 8.0
"""Median deviations from the median beyond which a mean is drawn at the edge, with its number."""
_LEAST_POINTS = 5
"""Means that tell what is far from the others."""
_ROW_SHARE = 0.7
"""Share of the distance between rows that the marks of one row take."""
_COLOURS = 10
_MARKERS = "osD^vP*X<>hdp"

Series = Mapping[str, Sequence[Estimate | None]]
"""For each label, a value for each row."""


def draw(plot: Plot, experiment: Experiment, runs: Runs, folder: Path) -> Path:
    """Draw one picture and return its path.

    Args:
        plot: the picture.
        experiment: the experiment, for the order of cases and the paper's numbers.
        runs: the runs with the values.
        folder: folder for the PNG file.
    """
    with mpl.rc_context(
        {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
    ):
        match plot:
            case Dots():
                figure = _dot_panels(plot, experiment, runs)
            case ApplicationDots():
                figure = _application_panels(plot, runs)
            case Lines():
                figure = _lines(plot, experiment, runs)
            case Stacks():
                figure = _stacks(plot, experiment, runs)
            case TimeLines():
                figure = _time_lines(plot, runs)
            case Courses():
                figure = _courses(plot, experiment, runs)
        path = folder / f"{plot.file}.png"
        # Without date and version, the same numbers give the same file.
        figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return path


def _panels(count: int, height_inches: float = _PANEL_INCHES[1]) -> tuple[Figure, list[Axes]]:
    columns = _columns(count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(_PANEL_INCHES[0] * columns, height_inches * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def _columns(count: int) -> int:
    """Return the number of columns, avoiding a single panel in the last row."""
    return 2 if count in {2, 4} else min(count, _MOST_COLUMNS)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        longest = max(len(label) for label in labels) + 6
        room = int(figure.get_size_inches()[0] * _CHARACTERS_PER_INCH / longest)
        columns = max(1, min(len(labels), room))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def _rows(policies: Sequence[str], panels: Sequence[Axes]) -> None:
    """Set up a row for each policy, labelled in the leftmost panels."""
    for index, axes in enumerate(panels):
        first = index % _columns(len(panels)) == 0
        axes.set_yticks(range(len(policies)), policies if first else [""] * len(policies))
        axes.set_ylim(len(policies) - 0.5, -0.5)


def _tall(policies: Sequence[str], series: int) -> float:
    """Return the height of a panel with a row for each policy, in inches."""
    return 0.8 + len(policies) * max(0.22, 0.1 * series)


def _dots(axes: Axes, series: Series) -> None:
    """Draw means with their intervals, row by row; those of one row close together."""
    for index, (label, values) in enumerate(series.items()):
        shift = (index - (len(series) - 1) / 2) * _ROW_SHARE / len(series)
        known = [(row + shift, value) for row, value in enumerate(values) if value is not None]
        axes.errorbar(
            [value.mean for _, value in known],
            [place for place, _ in known],
            xerr=[value.margin or 0.0 for _, value in known],
            label=label,
            fmt=_MARKERS[index % len(_MARKERS)],
            color=f"C{index % _COLOURS}",
            markersize=3.5,
            linewidth=0.9,
            capsize=2,
        )


def _focus(axes: Axes, series: Series) -> None:
    """Do not let one mean far from all others set the scale: draw it at the edge, with its number."""
    points = [(row, value) for values in series.values() for row, value in enumerate(values) if value]
    means = [value.mean for _, value in points]
    if len(means) < _LEAST_POINTS:
        return
    middle = median(means)
    reach = _FENCE * median([abs(mean - middle) for mean in means])
    inside = [value for _, value in points if abs(value.mean - middle) <= reach]
    if reach <= 0 or len(inside) == len(points):
        return
    least = min(value.mean - (value.margin or 0.0) for value in inside)
    most = max(value.mean + (value.margin or 0.0) for value in inside)
    margin = 0.08 * (most - least)
    axes.set_xlim(least - margin, most + margin)
    for row, value in points:
        if abs(value.mean - middle) > reach:
            left = value.mean < middle
            text = f"← {value.mean:.3g}" if left else f"{value.mean:.3g} →"
            place = 0.01 if left else 0.99
            side = "left" if left else "right"
            axes.text(place, row, text, transform=axes.get_yaxis_transform(), ha=side, va="center")


def _dot_panels(plot: Dots, experiment: Experiment, runs: Runs) -> Figure:
    policies = runs.policies()
    figure, panels = _panels(len(plot.metrics), _tall(policies, len(experiment.cases)))
    for axes, key in zip(panels, plot.metrics, strict=True):
        series = {
            case.name: [runs.estimate(Cell(policy, key, case.name)) for policy in policies]
            for case in experiment.cases
        }
        if len(series) == 1:
            _dots(axes, {"here": next(iter(series.values()))})
            _printed(axes, policies, key, experiment)
        else:
            _dots(axes, series)
        _focus(axes, series)
        axes.set_title(METRICS.of(key).heading)
    _rows(policies, panels)
    _legend(figure, panels[0])
    return figure


def _printed(axes: Axes, policies: Sequence[str], key: str, experiment: Experiment) -> None:
    """Draw the paper's numbers as open diamonds."""
    found = [
        (experiment.printed[cell].value, row)
        for row, policy in enumerate(policies)
        if (cell := Cell(policy, key)) in experiment.printed
    ]
    if found:
        axes.plot(*zip(*found, strict=True), "kD", markersize=5, fillstyle="none", label="paper")


def _application_panels(plot: ApplicationDots, runs: Runs) -> Figure:
    applications = runs.applications()
    policies = [policy for policy in runs.policies() if (plot.case, policy) in runs.by_seed]
    figure, panels = _panels(len(plot.metrics), _tall(policies, len(applications)))
    for axes, key in zip(panels, plot.metrics, strict=True):
        series = {
            name: [
                runs.estimate(Cell(policy, f"by_application.{name}.{key}", plot.case)) for policy in policies
            ]
            for name in applications
        }
        _dots(axes, series)
        axes.set_title(METRICS.of(key).heading)
    _rows(policies, panels)
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
    policies = runs.policies()
    figure, panels = _panels(len(experiment.cases), _tall(policies, 1))
    for axes, case in zip(panels, experiment.cases, strict=True):
        begin = [0.0] * len(policies)
        for key in plot.metrics:
            found = [runs.estimate(Cell(policy, key, case.name)) for policy in policies]
            widths = [0.0 if value is None else value.mean for value in found]
            axes.barh(range(len(policies)), widths, _ROW_SHARE, begin, label=METRICS.of(key).label)
            begin = [left + width for left, width in zip(begin, widths, strict=True)]
        axes.grid(visible=False, axis="y")
        axes.set_title(f"{case.name} ({METRICS.of(plot.metrics[0]).unit})")
    _rows(policies, panels)
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
    figure, panels = _panels(len(experiment.cases))
    for axes, case in zip(panels, experiment.cases, strict=True):
        for index, policy in enumerate(runs.policies()):
            _course(axes, list(runs.by_seed[case.name, policy].values()), plot.series, policy, index)
        axes.set_title(case.name)
        axes.set_xlabel(plot.axis)
    _legend(figure, panels[0])
    return figure


def _course(axes: Axes, runs: Sequence[Run], key: str, label: str, index: int) -> None:
    """Draw one line, the mean over runs, in a band as wide as its interval."""
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
