"""The demo's summary as a table for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_OUTCOMES = ("sent", "answered", "late", "partial", "refused", "expired", "failed", "lost")


def table(summary: Mapping[str, Any]) -> RenderableType:
    """Return tables of tasks, figures, decisions with examples, and nodes."""
    outcomes = Table(  # so that it fits into 80 columns
        "application", title="Tasks", title_justify="left", pad_edge=False, collapse_padding=True
    )
    figures = Table("application", title="Figures", title_justify="left")
    for heading in _OUTCOMES:
        outcomes.add_column(heading, justify="right")
    for heading in ("deadline hit rate", "reward", "accuracy", "p50 ms", "p95 ms"):
        figures.add_column(heading, justify="right")
    for name, part in {**summary["by_application"], "all": summary}.items():
        outcomes.add_row(name, *(str(part["tasks"][outcome]) for outcome in _OUTCOMES))
        figures.add_row(
            name,
            _figure(part["deadline_hit_rate"], 3),
            _figure(part["reward"], 3),
            _figure(part["accuracy"], 4),
            *(_figure(part["response_ms"][quantile], 0) for quantile in ("p50", "p95")),
        )
    decisions = Table("decision", "tasks", "for example because", title="Decisions", title_justify="left")
    for name, count in summary["decisions"].items():
        decisions.add_row(name, str(count), Text(summary["reasons"].get(name, "")))
    if "refused" in summary["reasons"]:
        decisions.add_row("refused", str(summary["tasks"]["refused"]), Text(summary["reasons"]["refused"]))
    nodes = Table("node", title="Nodes", title_justify="left")
    for heading in ("CPU share", "GFLOP/s", "memory MiB", "micro-batches run"):
        nodes.add_column(heading, justify="right")
    for node in summary["nodes"]:
        nodes.add_row(
            node["node"],
            _figure(node["cpu_share"], 3),
            _figure(node["score"], 1),
            _figure(node["memory_budget_bytes"] / 2**20, 1),
            _figure(node["executed"], 0),
        )
    note = Text(
        "Hit rate and reward (equation 15) count every task that was sent: one without an answer in time is "
        "a miss, and one without a result has reward 0. Late and partial ones are among the answered.",
        style="dim",
    )
    return Group(outcomes, figures, decisions, nodes, note)


def _figure(value: float | None, digits: int) -> str:
    return "·" if value is None else f"{value:.{digits}f}"
