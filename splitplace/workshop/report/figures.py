"""Diagrams for the report page, as SVG. Needs matplotlib."""

import io
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from splitplace.messages.application import Application
from splitplace.workshop.report.groups import GroupConfusion
from splitplace.workshop.report.times import BATCH, times_of

_MARKERS = "osD^vP*X<>hdp"
_COLOURS = 10
_PANEL_INCHES = (4.4, 2.9)
_LEGEND_INCHES = 0.5
_GRID = "#ddd"
_APART = 0.3
"""Distance between the two points of a branch, as a share of the distance between branches."""
_MATRIX_INCHES = 3.2
_DARK = 0.5
"""Share of a row above which the background is too dark for black letters."""


def trade_off(applications: Sequence[Application]) -> str:
    """Draw accuracy against time, with a row for each application and a point for each variant.

    On the left, time is the predicted answer to a task, as in the paper's Figure 2; on the right, computing
    alone.
    """
    names = list(
        dict.fromkeys(variant.name for application in applications for variant in application.variants)
    )
    width, height = _PANEL_INCHES
    with _style():
        size = (2 * width, height * len(applications) + _LEGEND_INCHES)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(applications), 2, squeeze=False)
        for application, (answer, path) in zip(applications, panels, strict=True):
            for variant in application.variants:
                number = names.index(variant.name)
                times = times_of(application, variant)
                for axes, milliseconds in ((answer, times.answer_ms), (path, times.path_ms)):
                    if math.isfinite(milliseconds):
                        axes.plot(
                            [milliseconds],
                            [variant.accuracy],
                            _MARKERS[number % len(_MARKERS)],
                            color=f"C{number % _COLOURS}",
                            alpha=0.8,
                            label=variant.name,
                        )
            answer.set_title(f"{application.name}: answer to {BATCH} pictures on small boards")
            path.set_title(f"{application.name}: computing a picture, slowest way")
            answer.set_ylabel("accuracy")
            for axes in (answer, path):
                axes.set_xlabel("milliseconds")
                axes.margins(0.1)
                axes.set_xlim(left=0)
                axes.grid(visible=True, color=_GRID)
                axes.set_axisbelow(True)
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        entries = {
            label: handle
            for axes in panels.flat
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=min(len(entries), 6) or 1,
            frameon=False,
        )
        return _svg(figure)


def group_accuracies(confusion: GroupConfusion) -> str:
    """Draw the accuracy on the pictures of each group, beside that of the whole network."""
    places = range(len(confusion.branches))
    with _style():
        figure = Figure(figsize=(_PANEL_INCHES[0], 1.2 + 0.5 * len(places)), layout="constrained")
        axes = figure.subplots()
        series = [(confusion.variant, confusion.right, "D"), ("whole", confusion.whole_right, "o")]
        for number, (label, shares, marker) in enumerate(series):
            if not shares:
                continue
            rows = [place + _APART * (number - 0.5) for place in places]
            axes.plot(shares, rows, marker, label=label)
            for share, row in zip(shares, rows, strict=True):
                axes.annotate(
                    f"{share:.2%}", (share, row), (6, 0), textcoords="offset points", va="center", fontsize=8
                )
        axes.set_yticks(places, confusion.branches)
        axes.invert_yaxis()
        axes.margins(x=0.3, y=0.1)
        axes.grid(visible=True, axis="x", color=_GRID)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("accuracy on the classes of the branch")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        return _svg(figure)


def confusion_matrix(confusion: GroupConfusion) -> str:
    """Draw which branch won for the pictures of each group, as shares of the group."""
    totals = confusion.won.sum(axis=1, keepdims=True)
    shares = confusion.won / totals.clip(1)
    branches = confusion.branches
    with _style():
        side = max(_MATRIX_INCHES, 0.9 * len(branches))
        figure = Figure(figsize=(side + 0.8, side), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.spines[:].set_visible(False)
        for row, values in enumerate(shares):
            for column, share in enumerate(values):
                colour = "white" if share > _DARK else "black"
                text = f"{share:.2%}\n{confusion.won[row, column]}"
                axes.text(column, row, text, ha="center", va="center", color=colour)
        axes.set_xticks(range(len(branches)), branches)
        axes.set_yticks(range(len(branches)), branches)
        axes.set_xlabel("branch that won")
        axes.set_ylabel("branch that owns the right class")
        return _svg(figure)


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.hashsalt": "splitplace",  # makes the output reproducible
        }
    )


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
