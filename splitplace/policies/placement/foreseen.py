"""The placement that the splitter has found for a task, taken over by the placer where nothing has changed.

Splitter and placer see the same cluster states, a moment apart. The search for a placement takes most of the
time of a decision; to predict one that is given takes a small part of it.
"""

from dataclasses import replace

from splitplace.messages.groupings import GroupingError, with_stages
from splitplace.messages.limits import MAX_DEADLINE_MS, MAX_FORESEEN
from splitplace.messages.placing import ForeseenPlacement, StagePlacement
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement.interface import Placement, PlacementRequest
from splitplace.policies.prediction import Job, PlacedShare, StageSchedule, scheduled

WORSE_BY_MS = 0.5
"""How much later a placement may end than it was foreseen: less than anything that others would do to it."""


def foreseen_of(found: Placement, cluster: ClusterView) -> ForeseenPlacement | None:
    """Return a placement as a hint for the placer; None if it is too large or the cluster is not known."""
    is_large = len(found.shares) > MAX_FORESEEN or found.prediction.response_ms > MAX_DEADLINE_MS
    if cluster.sequence is None or is_large:
        return None
    return ForeseenPlacement(
        cluster=cluster.sequence,
        micro_batch=found.job.micro_batch,
        stages=stage_placements(found),
        predicted_ms=found.prediction.response_ms,
    )


def stage_placements(found: Placement) -> tuple[StagePlacement, ...]:
    """Return the stages of a placement as messages name them."""
    runs = found.job.runs
    return tuple(
        [
            StagePlacement(
                stage=share.stage,
                node=share.node,
                work_ms=share.work_ms,
                micro_batches=share.micro_batches,
                run=runs.get(share.stage),
            )
            for share in found.shares
        ]
    )


def confirmed(
    request: PlacementRequest,
    foreseen: ForeseenPlacement,
    cluster: ClusterView,
    now_ms: float,
    *,
    replicas: int,
) -> Placement | None:
    """Return a foreseen placement, predicted again; None if anything has changed that bears on it.

    It is not used when there is a newer cluster state, when it would end later or a node lacks the memory
    because of other tasks, or when it names nodes that failed the task or are gone.

    Args:
        request: the job that was decided.
        foreseen: what the splitter has found.
        cluster: the cluster as the caller knows it.
        now_ms: the present moment.
        replicas: most nodes that may share a stage.
    """
    if foreseen.cluster != cluster.sequence:
        return None
    names = {stage.node for stage in foreseen.stages}
    if names & request.avoid or not names <= cluster.nodes.keys():
        return None
    job = _job(request.job, foreseen)
    if job is None:
        return None
    shares = [
        PlacedShare(stage.stage, stage.node, stage.work_ms, stage.micro_batches) for stage in foreseen.stages
    ]
    if max([sum(share.stage == stage.name for share in shares) for stage in job.variant.stages]) > replicas:
        return None
    try:
        schedule = scheduled(cluster, job, shares, now_ms, start_ms=request.start_ms, due_ms=request.due_ms)
    except KeyError:
        return None
    found = Placement.of(schedule)
    late = found.prediction.response_ms > foreseen.predicted_ms + WORSE_BY_MS
    return None if late or not _fits(schedule) else found


def _job(job: Job, foreseen: ForeseenPlacement) -> Job | None:
    """Return the job in the stages and micro-batches of a placement; None if it has no such stages."""
    if any(stage.run is not None for stage in foreseen.stages):
        try:
            job = job.regrouped(with_stages(job.application, job.variant.name, foreseen.stages))
        except GroupingError:
            return None
    elif {stage.stage for stage in foreseen.stages} != {stage.name for stage in job.variant.stages}:
        return None
    if foreseen.micro_batch < job.micro_batch:
        job = replace(job, cut=foreseen.micro_batch)
    return job if foreseen.micro_batch == job.micro_batch else None


def _fits(schedule: StageSchedule) -> bool:
    """Whether each node has memory for all that a schedule puts on it."""
    again = StageSchedule(schedule.cluster, schedule.job, schedule.now_ms, schedule.start_ms, schedule.due_ms)
    for stage in schedule.job.variant.stages:
        offer = schedule.offers[stage.name]
        if not all(again.fits(stage, share.node) for share in offer.shares):
            return False
        again.put(stage, offer)
    return True
