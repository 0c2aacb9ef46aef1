"""Draw an observation: a live page for a terminal, plain lines elsewhere."""

from collections.abc import Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from splitplace.commands.shared.output import cell
from splitplace.commands.shared.task_record import TaskRecord
from splitplace.commands.shared.wording import counted
from splitplace.commands.watch.observation import Observation
from splitplace.commands.watch.words import mark, name_of
from splitplace.messages.cluster import NodeState
from splitplace.messages.limits import MEBIBYTE

_MISSING = "·"
_RECENT = 8
"""Tasks on the page."""
_STYLES = {"in time": "green", "LATE": "yellow", "open": "dim"}


def page(observation: Observation, title: str) -> RenderableType:
    """Return everything as a page for a terminal."""
    return Group(
        Text(title, style="bold"),
        Text(""),
        nodes_table(observation),
        _tasks(observation),
        _decisions(observation),
    )


def line(observation: Observation) -> str:
    """Return the same in one line."""
    online = sum(node.online for node in observation.nodes.values())
    queued = sum(node.queue_length for node in observation.nodes.values())
    decisions = ", ".join(f"{count} {name}" for name, count in observation.decided.most_common())
    return (
        f"{counted(online, 'node')}, {counted(len(observation.accepted), 'task')} accepted, "
        f"{len(observation.finished)} finished, "
        f"hit rate {_ratio(observation.hit_rate)}, queue {queued}; decisions: {decisions or _MISSING}"
    )


def nodes_table(observation: Observation) -> Table:
    """Return the nodes with what they hold and do."""
    table = _table("Nodes")
    table.add_column("node", overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in ("share", "GFLOP/s", "CPU", "memory MB", "loaded", "queue", "queue ms", "runs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, node in sorted(observation.nodes.items()):
        info, metrics = observation.infos.get(name), observation.node_metrics.get(name)
        share = info.cpu_share if info else None
        table.add_row(
            name,
            _state(node),
            _MISSING if share is None else f"{share:.2f}",
            f"{node.score:.1f}",
            f"{node.cpu_ratio:.0%}",
            _memory(node, metrics.loaded_bytes if metrics else None),
            str(len(node.loaded)),
            str(node.queue_length),
            f"{node.queue_ms:.0f}",
            _MISSING if metrics is None else str(metrics.executed),
        )
    return table


def _state(node: NodeState) -> str:
    if not node.online:
        return "[red]offline[/]"
    return "[yellow]stalled[/]" if node.stalled else "[green]online[/]"


def _table(title: str) -> Table:
    """A table without rules between its columns: the page fits into 80 of them."""
    return Table(
        title=title,
        title_justify="left",
        expand=True,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )


def _memory(node: NodeState, loaded_bytes: int | None) -> str:
    budget = node.memory_budget_bytes / MEBIBYTE
    return (
        f"{_MISSING} / {budget:.1f}"
        if loaded_bytes is None
        else f"{loaded_bytes / MEBIBYTE:.1f} / {budget:.1f}"
    )


def _tasks(observation: Observation) -> Table:
    tasks, gateway = observation.tasks, observation.gateway
    figures: Mapping[str, str] = {
        "accepted": str(len(observation.accepted)),
        "open": _MISSING if gateway is None else str(gateway.in_flight),
        "finished": str(len(observation.finished)),
        "hit\nrate": _ratio(observation.hit_rate),
        "reward": _ratio(tasks.reward if tasks else None),
        "accuracy": _ratio(tasks.accuracy if tasks else None),
        "p50\nms": _milliseconds(tasks.response_p50_ms if tasks else None),
        "p95\nms": _milliseconds(tasks.response_p95_ms if tasks else None),
        "refused": _MISSING if gateway is None else str(gateway.refused + gateway.invalid),
        "retried": _MISSING if gateway is None else str(gateway.retried),
    }
    table = _table("Tasks")
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row(*figures.values())
    return table


def _decisions(observation: Observation) -> Table:
    counts = ", ".join(f"{name} {count}" for name, count in sorted(observation.decided.items()))
    table = _table(f"Decisions: {counts or 'none yet'}")
    table.add_column("", no_wrap=True)
    table.add_column("task", overflow="fold")
    table.add_column("ms of ms", justify="right", no_wrap=True)
    table.add_column("decision", overflow="fold")
    table.add_column("why", ratio=1)
    for record in list(observation.records.values())[-_RECENT:]:
        said, end = mark(record), record.finished
        decided, known = record.last.decided, record.finished or record.accepted
        due = _milliseconds(known.deadline_ms if known else None)
        table.add_row(
            Text(said, _STYLES.get(said, "red")),
            name_of(record),
            f"{_milliseconds(end.response_ms if end else None)} of {due}",
            (end.variant if end else decided.variant if decided else None) or _MISSING,
            cell(_reason(record)),
        )
    return table


def _reason(record: TaskRecord) -> str:
    """Return why it ended badly, else why it was run as it was."""
    decided, end = record.last.decided, record.finished
    if end is not None and end.status != "answered":
        return end.reason
    return decided.reason if decided else ""


def _ratio(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.3f}"


def _milliseconds(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.0f}"
