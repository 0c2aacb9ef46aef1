"""What the demo says about its acts, in plain words. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from statistics import fmean
from typing import Any

from rich.table import Table
from rich.text import Text

from splitplace.commands.demo.by_deadline import Group
from splitplace.commands.demo.kill import Killed
from splitplace.commands.demo.single_node import SingleNode
from splitplace.commands.shared.task_record import TaskRecord
from splitplace.messages.application import Application
from splitplace.policies.memory import megabytes

SPLITS = ("layer", "semantic")
_LITTLE = 0.9
"""Where the faster of two takes more than this share of the other's time, it gains little."""


def busy_note(load: float, cores: int) -> str:
    """Say that other work slows the demo down; empty where it hardly does.

    Args:
        load: processes that wanted to run in the minute before the demo, on average.
        cores: those of this machine.
    """
    if load < cores:
        return ""
    return (
        f"This machine had other work when the demo began (a load of {load:.1f} on {cores} cores), so nodes "
        "were slower and fewer tasks in time than on one that is free."
    )


def prologue(nodes: int, large: Application, small: Sequence[Application]) -> str:
    """Say what is there."""
    names = " and ".join(each.name for each in small)
    return (
        f"Here are a broker, five services and {nodes} edge nodes of three speeds: processes of this "
        f"machine, each with a share of a processor and a memory budget. Sensors send labelled pictures, "
        f"each task "
        f"with a deadline. The network of the first three acts is {large.name} ({large.title}); "
        + (f"the small ones of the last act are {names}." if names else "the store has no smaller ones.")
    )


def act_one(large: Application, needs_bytes: int, node: str, node_bytes: int, tasks: int) -> str:
    """Say what is tried in the first act."""
    return (
        f"As a whole, {large.name} needs {megabytes(needs_bytes)} of memory on a node. The largest node, "
        f"{node}, has {megabytes(node_bytes)}. The splitter may not split yet (--arms whole), and {tasks} "
        f"tasks "
        "are sent."
    )


def act_one_result(part: Mapping[str, Any]) -> str:
    """Say how the first act ended."""
    tasks = part["tasks"]
    why = f" The splitter says why: “{part['reason']}”." if part["reason"] else ""
    if tasks["answered"]:
        return f"{tasks['answered']} of {tasks['sent']} were answered all the same.{why}"
    expired = f", {tasks['expired']} expired before that," if tasks["expired"] else ""
    return (
        f"{tasks['refused']} of {tasks['sent']} were refused{expired} and none was answered: hit rate 0, "
        f"reward 0.{why} "
        "A faster node would not help: memory is missing, not time."
    )


def act_two(tasks: int) -> str:
    """Say what is different in the second act."""
    return (
        f"The same {tasks} tasks with the same deadlines, and now the splitter may split. `layer` cuts the "
        "network into stages that run one after the other: the same answer, with the memory of several "
        "nodes. "
        "`semantic` runs branches side by side, each for a group of classes: faster, often a little less "
        "accurate."
    )


def act_two_result(part: Mapping[str, Any]) -> str:
    """Say how the second act ended."""
    tasks = part["tasks"]
    in_time = tasks["answered"] - tasks["late"]
    return (
        f"{tasks['answered']} of {tasks['sent']} were answered, {in_time} of them in time. No node holds the "
        "network, but together they do. The way of a task through the nodes, along its time (█ computing, "
        "░ waiting, | deadline):"
    )


def comparison(without: Mapping[str, Any], single: SingleNode | None, split: Mapping[str, Any]) -> Table:
    """Return the figures of one node beside those of several."""
    table = Table("the same tasks", title="One node or several", title_justify="left")
    for heading in ("answered", "in time", "reward"):
        table.add_column(heading, justify="right")
    sent = split["tasks"]["sent"]
    table.add_row("without splitting (act 1)", *_row(without))
    if single is not None:
        table.add_row(
            Text(f"best single node, {single.node}, with the memory (calculated)"),
            f"{sent} of {sent}",
            f"{single.deadline_hit_rate:.3f}",
            f"{single.reward:.3f}",
        )
    table.add_row("split over the nodes (act 2)", *_row(split))
    return table


_LESS_WORK = 0.9
"""Share of the whole network's work up to which a split is said to need less."""


def verdict(single: SingleNode | None, split: Mapping[str, Any], large: Application) -> str:
    """Say how splitting compares with the best single node, and why."""
    if single is None or split["deadline_hit_rate"] is None:
        return ""
    mine, alone = split["deadline_hit_rate"], single.deadline_hit_rate
    said = (
        f"Split, {mine:.0%} were in time; the best single node would reach {alone:.0%} if it had the memory"
    )
    if mine > alone:
        return f"{said}. {_why_faster(split['decisions'], large)}"
    if mine == alone:
        return f"{said}. It has not: here the split buys memory."
    return f"{said}. It has not: here the split buys memory, and pays for it with time."


def _why_faster(decisions: Mapping[str, int], large: Application) -> str:
    chosen = max(decisions, key=lambda name: decisions[name], default="")
    work = {
        each.name: sum(large.fragment(stage.fragment).flops_per_image for stage in each.stages)
        for each in large.variants
    }
    whole = max([work[each.name] for each in large.variants if each.kind == "whole"], default=0.0)
    share = work[chosen] / whole if whole and chosen in work else 1.0
    if share < _LESS_WORK:
        return f"{chosen} was chosen most; its stages are together {share:.0%} of the whole network's work."
    return "Several nodes also compute at the same time."


def deadlines_table(groups: Iterable[Group]) -> Table:
    """Return how splits and figures change with the deadline."""
    table = Table(
        "deadline",
        title="layer or semantic? Deadlines are multiples of what the fastest split needs",
        title_justify="left",
    )
    for heading in ("tasks", "layer", "semantic", "no answer", "in time", "right"):
        table.add_column(heading, justify="right")
    below = 0.0
    for each in groups:
        span = f"up to {each.up_to:g}" if each.up_to < inf else f"over {below:g}"
        table.add_row(
            f"{each.name}: {span} x",
            str(each.tasks),
            str(each.layer),
            str(each.semantic),
            str(each.unanswered),
            _ratio(each.deadline_hit_rate),
            _ratio(each.accuracy),
        )
        below = each.up_to
    return table


def act_three(tasks: int) -> str:
    """Say what is done in the third act."""
    return (
        f"{tasks} more tasks. In the middle of one, the node that has most of its work is killed (kill "
        f"-9): no "
        "goodbye, its memory and queue are gone."
    )


def act_three_result(part: Mapping[str, Any], killed: Killed | None) -> str:
    """Say what the death of a node meant."""
    tasks = part["tasks"]
    whole = (
        f"Of all {tasks['sent']} tasks of this act {tasks['answered']} were answered, "
        f"{tasks['answered'] - tasks['late']} in time; {tasks['unanswered']} got no answer at all."
    )
    if killed is None:
        return f"No task ran at a moment when a node could be killed. {whole}"
    return (
        f"{killed.node} was killed. Lost with it: the unfinished work of {killed.lost} "
        f"task{'' if killed.lost == 1 else 's'}. Started again on other nodes: {killed.retried}. Answered: "
        f"{killed.answered}, in time: {killed.in_time}. {whole} The other nodes hold the pieces that it "
        f"held, "
        "or fetch them."
    )


def act_four(small: Sequence[Application], tasks: int) -> str:
    """Say what is different about small networks."""
    names = " and ".join(f"{each.name}" for each in small)
    return (
        f"{tasks} tasks of a few pictures for {names}. These networks fit a node, and computing them takes "
        f"a few "
        "milliseconds: about as long as sending their tensors from node to node."
    )


_NOT_WORTH_IT = "Splitting would be a little faster, but not worth its work or its accuracy."


def act_four_result(part: Mapping[str, Any]) -> str:
    """Say whether splitting lost, and whether the splitter knew."""
    whole, split, tasks = part["whole"], part["split"], part["tasks"]["sent"]
    predicted = part["predicted_ms"]
    known = ", ".join(f"{name} {ms:.0f} ms" for name, ms in predicted.items() if ms is not None)
    figures = f"Predicted on average: {known}. " if known else ""
    chosen = f"The splitter ran {whole} of {whole + split} tasks whole. "
    best = min((ms for name, ms in predicted.items() if name in SPLITS and ms is not None), default=None)
    alone = predicted.get("whole")
    ratio = None if alone is None or best is None else best / alone
    if whole > split:
        splitting_loses = ratio is not None and ratio >= 1
        finding = "Here splitting loses, and it knows." if splitting_loses else _NOT_WORTH_IT
    elif ratio is not None and _LITTLE < ratio < 1 / _LITTLE:
        finding = "Here it makes little difference whether they are split."
    elif ratio is not None and ratio >= 1:
        finding = "Here splitting loses."
    else:
        finding = "On these nodes even the small networks gain by running on several at once."
    in_time = part["tasks"]["answered"] - part["tasks"]["late"]
    return f"{finding} {figures}{chosen}{in_time} of {tasks} tasks were answered in time."


def predicted(
    records: Iterable[TaskRecord], application_of: Mapping[str, Application]
) -> dict[str, float | None]:
    """Return the mean prediction of the first decision for the whole network and for each kind of split."""
    found: dict[str, list[float]] = {"whole": [], **{kind: [] for kind in SPLITS}}
    for record in records:
        first = record.attempts.get(1)
        if first is None or first.decided is None or record.application not in application_of:
            continue
        for kind, means in found.items():
            times = [
                estimate.predicted_ms
                for estimate in first.decided.alternatives
                if estimate.kind == kind and estimate.predicted_ms is not None
            ]
            means.extend(sorted(times)[:1])
    return {kind: fmean(times) if times else None for kind, times in found.items()}


def examples(records: Iterable[TaskRecord], large: Application) -> list[TaskRecord]:
    """Return a task in time of each kind of split, to be drawn: the one on most nodes, then the longest."""
    kinds = {variant.name: variant.kind for variant in large.variants}
    found: dict[str, TaskRecord] = {}
    for record in records:
        end = record.finished
        kind = kinds.get(end.variant or "") if end else None
        if end is None or kind not in SPLITS or record.outcome != "on time" or not end.stages:
            continue
        if kind not in found or _worth(record) > _worth(found[kind]):
            found[kind] = record
    return [found[kind] for kind in SPLITS if kind in found]


def _worth(record: TaskRecord) -> tuple[bool, int, float]:
    """Order tasks for drawing. Sums over micro-batches that overlap are longer than the task itself."""
    end = record.finished
    if end is None:
        return (False, 0, 0.0)
    spent_ms = sum(each.queue_ms + each.compute_ms for each in end.stages)
    return (spent_ms <= end.response_ms, len({each.node for each in end.stages}), end.response_ms)


def _row(part: Mapping[str, Any]) -> tuple[str, str, str]:
    tasks = part["tasks"]
    return (
        f"{tasks['answered']} of {tasks['sent']}",
        _ratio(part["deadline_hit_rate"]),
        _ratio(part["reward"]),
    )


def _ratio(value: float | None) -> str:
    return "·" if value is None else f"{value:.3f}"
