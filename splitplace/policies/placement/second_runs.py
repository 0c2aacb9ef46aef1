"""Where the outputs of a task that are overdue are computed a second time, if anywhere.

That is on nodes that have no part in what is overdue, and only if it is in time and costs others little:
the nodes must be almost free. So a cluster that is busy everywhere runs nothing twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from splitplace.messages.application import Application, Variant
from splitplace.messages.groupings import path_to
from splitplace.messages.limits import MAX_SECOND_PARTS
from splitplace.messages.second_run import OverdueOutputs
from splitplace.messages.task import TaskPlaced
from splitplace.policies.placement.interface import Placement, PlacementRequest
from splitplace.policies.prediction import Job

BUSY_SHARE = 0.25
"""Most of the predicted time of a second run that may be waiting for other work on its nodes."""


@dataclass(frozen=True, slots=True)
class OverdueWork:
    """What is to be computed again of branches that share a root stage, or of all stages."""

    micro_batches: tuple[int, ...]
    """Numbers of the placement, ascending."""
    job: Job
    """These micro-batches alone, and the stages that lead to what is overdue."""


def laggards(
    application: Application, placed: TaskPlaced, overdue: Iterable[OverdueOutputs]
) -> frozenset[str]:
    """Return the nodes that overdue outputs come through; one at least is behind."""
    paths = placed.paths()
    return frozenset(
        node
        for each in overdue
        for number in each.micro_batches
        for node in _nodes(application, placed, each.branch, paths[number])
    )


def outputs_through(
    application: Application, placed: TaskPlaced, missing: Iterable[OverdueOutputs], node: str
) -> tuple[OverdueOutputs, ...]:
    """Return those of the missing outputs that come through a node."""
    paths = placed.paths()
    through = (
        (
            each.branch,
            tuple(
                number
                for number in each.micro_batches
                if node in _nodes(application, placed, each.branch, paths[number])
            ),
        )
        for each in missing
    )
    return tuple(
        OverdueOutputs(branch=branch, micro_batches=numbers) for branch, numbers in through if numbers
    )


def _nodes(
    application: Application, placed: TaskPlaced, branch: str | None, path: Mapping[str, str]
) -> set[str]:
    """Return the nodes that an output of a micro-batch comes through.

    Args:
        application: its manifest.
        placed: where the task runs.
        branch: the last stage, where there are several.
        path: the node of every stage for this micro-batch.
    """
    if branch is None:
        return set(path.values())
    return {path[stage] for stage in path_to(application.variant(placed.variant), branch)}


def overdue_work(
    application: Application, placed: TaskPlaced, overdue: tuple[OverdueOutputs, ...]
) -> tuple[OverdueWork, ...]:
    """Return what is to be computed again; nothing if the application or the placement has no such outputs,
    or the branches are too many for a message.

    Branches that share a stage are computed again together.

    Args:
        application: its manifest.
        placed: where the task runs. All micro-batches but the last are of the same size.
        overdue: the outputs.
    """
    variant = next((known for known in application.variants if known.name == placed.variant), None)
    if variant is None or any(each.micro_batches[-1] >= placed.micro_batch_count for each in overdue):
        return ()
    sinks = {sink.name for sink in variant.sinks}
    if not {each.branch for each in overdue} <= (sinks if len(sinks) > 1 else {None}):
        return ()
    by_root: dict[str, list[OverdueOutputs]] = {}
    for each in overdue:
        by_root.setdefault(path_to(variant, each.branch)[0] if each.branch else "", []).append(each)
    if len(by_root) > MAX_SECOND_PARTS:
        return ()
    return tuple(_work(application, variant, placed, several) for several in by_root.values())


def _work(
    application: Application, variant: Variant, placed: TaskPlaced, overdue: list[OverdueOutputs]
) -> OverdueWork:
    numbers = tuple(sorted({number for each in overdue for number in each.micro_batches}))
    wanted = {name for each in overdue if each.branch for name in path_to(variant, each.branch)}
    if wanted:
        stages = tuple(stage for stage in variant.stages if stage.name in wanted)
        variant = variant.model_copy(update={"stages": stages})
    last = placed.micro_batch_count - 1
    batch = placed.micro_batch * len(numbers)
    if last in numbers:
        batch += placed.batch - last * placed.micro_batch - placed.micro_batch
    return OverdueWork(numbers, Job(application, variant, batch, cut=placed.micro_batch))


def is_in_time(found: Placement, request: PlacementRequest, now_ms: float) -> bool:
    """Whether a job that is to run a second time ends before its deadline where it was placed.

    Args:
        found: where it would run.
        request: the job of what is overdue or lost.
        now_ms: the present moment.
    """
    response_ms = found.prediction.response_ms
    if found.job.micro_batch != request.job.micro_batch or response_ms == inf:
        return False
    return now_ms + response_ms <= request.due_ms


def disturbs_others(found: Placement, waits_ms: Mapping[str, float]) -> bool:
    """Whether a second run would wait for the work of others, by how long that takes on each node."""
    return max(waits_ms[name] for name in found.node_names) > BUSY_SHARE * found.prediction.response_ms
