"""Draw the path of a task through the nodes, for a terminal. Pure."""

from collections.abc import Mapping, Sequence

from splitplace.commands.shared.task_record import Bar, TaskRecord, sources, timeline
from splitplace.messages.application import Application
from splitplace.messages.names import readable

_WIDTH = 26
"""Columns of the time axis."""


def path_lines(record: TaskRecord, application: Application | None) -> list[str]:
    """Return a task's way from the sensor through its stages to the answer, a line a step.

    Stages stand below the one whose output they read, so a chain goes down like stairs and branches stand
    side by side. A finished task has a time axis: `░` waiting, `█` computing, `|` the deadline.

    Args:
        record: The task, as far as it is known.
        application: Tells which stage reads which, where it is known.
    """
    known = record.finished or record.accepted or record.last.decided
    what = f"{known.batch} x {record.application}" if known else record.application
    due = f", due within {known.deadline_ms:.0f} ms" if known and known.deadline_ms is not None else ""
    lines = [f"{readable(record.task)}: {what}{due}"]
    for number, attempt in sorted(record.attempts.items()):
        if number > 1:
            lines.append(f"attempt {number}")
        if attempt.decided is not None and attempt.decided.variant is not None:
            lines.append(f"  {attempt.decided.variant}: {attempt.decided.reason}")
        if attempt is not record.last or record.finished is None or not record.finished.stages:
            lines += _placed(record, number, application)
        lines += [f"  ✗ {each.stage} on {each.node} failed: {each.reason}" for each in attempt.failures]
    lines += _measured(record, application)
    return [*lines, f"  {end_line(record)}"]


def end_line(record: TaskRecord) -> str:
    """Return how a task ended, in one line."""
    end = record.finished
    if end is None:
        return "… not answered yet"
    times = f"{end.response_ms:.0f} of {end.deadline_ms:.0f} ms"
    part = "" if end.coverage in (None, 1.0) else f", {end.coverage:.0%} of the classes"
    match record.outcome:
        case "on time":
            return f"✓ answered in time: {times}{part}"
        case "late":
            return f"! answered late: {times}{part}"
        case other:
            return f"✗ {other} after {times}: {end.reason}"


def arrows(record: TaskRecord, application: Application | None) -> str:
    """Return the nodes of a task in a line: `a → b` for a chain, `a + b` for branches; empty if unknown."""
    placed = record.last.placed
    if placed is None or not placed.stages:
        return ""
    parents = _parents([each.stage for each in placed.stages], sources(application, placed.variant))
    text, before = "", None
    for each in placed.stages:
        if before is None:
            text = each.node
        else:
            text += f"{' + ' if parents[each.stage] == parents[before] else ' → '}{each.node}"
        before = each.stage
    return text


def _placed(record: TaskRecord, number: int, application: Application | None) -> list[str]:
    placed = record.attempts[number].placed
    if placed is None:
        return []
    if not placed.stages:
        return [f"  no placement: {placed.reason}"]
    names = [each.stage for each in placed.stages]
    depths = _depths(names, sources(application, placed.variant))
    return [
        f"  {'   ' * depths[each.stage]}└▶ {each.stage} on {each.node}, {each.work_ms:.0f} ms expected"
        for each in placed.stages
    ]


def _measured(record: TaskRecord, application: Application | None) -> list[str]:
    end, bars = record.finished, timeline(record, application)
    if end is None or not bars:
        return []
    depths = _depths([bar.stage for bar in bars], sources(application, end.variant))
    names = [f"  {'   ' * depths[bar.stage]}└▶ {bar.stage} on {bar.node}" for bar in bars]
    width = max(map(len, names))
    whole_ms = max(end.deadline_ms, *(bar.start_ms + bar.wait_ms + bar.compute_ms for bar in bars), 1.0)
    if end.response_ms < end.deadline_ms / 2:
        whole_ms = max(2 * end.response_ms, *(bar.start_ms + bar.wait_ms + bar.compute_ms for bar in bars))
    return [
        f"{name:<{width}}  {_axis(bar, whole_ms, end.deadline_ms)}  "
        f"{bar.compute_ms:.0f} ms" + (f", waited {bar.wait_ms:.0f}" if bar.wait_ms >= 1 else "")
        for name, bar in zip(names, bars, strict=True)
    ]


def _axis(bar: Bar, whole_ms: float, deadline_ms: float) -> str:
    start = round(_WIDTH * bar.start_ms / whole_ms)
    computes = round(_WIDTH * (bar.start_ms + bar.wait_ms) / whole_ms)
    end = max(computes + 1, round(_WIDTH * (bar.start_ms + bar.wait_ms + bar.compute_ms) / whole_ms))
    axis = list(" " * start + "░" * (computes - start) + "█" * (end - computes))
    axis = (axis + [" "] * _WIDTH)[: _WIDTH + 1]
    due = round(_WIDTH * deadline_ms / whole_ms)
    if due <= _WIDTH and axis[due] == " ":
        axis[due] = "|"
    return "".join(axis)


def _parents(names: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Return the stage that each one reads; one that is not known reads the one before it."""
    parents, before = {}, "input"
    for name in dict.fromkeys(names):
        parents[name] = known.get(name, before)
        before = name
    return parents


def _depths(names: Sequence[str], known: Mapping[str, str]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for name, parent in _parents(names, known).items():
        depths[name] = depths[parent] + 1 if parent in depths else 0
    return depths
