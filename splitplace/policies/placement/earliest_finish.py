"""Each stage goes where it is predicted to finish first."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from typing_extensions import override

from splitplace.messages.application import Stage
from splitplace.messages.limits import MAX_DEALT, MAX_PLACED
from splitplace.messages.placing import ForeseenPlacement
from splitplace.policies.cluster import ClusterView
from splitplace.policies.cost import HOP_MS, Flags
from splitplace.policies.placement import few_nodes
from splitplace.policies.placement.board import Board, ahead
from splitplace.policies.placement.feasibility import no_grouping, no_room, no_usable_node
from splitplace.policies.placement.foreseen import confirmed
from splitplace.policies.placement.interface import (
    Infeasible,
    Placement,
    PlacementRequest,
    StatelessPlacement,
)
from splitplace.policies.placement.regroup import Regrouper, can_wait, loads
from splitplace.policies.placement.room import Room
from splitplace.policies.prediction import Job, Offer, StageSchedule

LEAST_GAIN = 0.05
"""Share of the predicted time that a further replica must save, and at least the time of a hop: it costs
calls, messages and memory."""

FINEST = 8
"""Micro-batches into which a batch is cut for sharing at most; the variant may cut it finer."""


class EarliestFinish(StatelessPlacement):
    """A list scheduler in the manner of HEFT (Topcuoglu et al. 2002).

    Stages in topological order each take the node on which the last of their micro-batches is predicted to
    finish first, given the stages before. That is greedy: it may scatter a chain over nodes that are each a
    little faster and lose more on the way. So every single node that could hold all stages is tried as well,
    and the better placement wins. Among equals the node that is free first wins, then the first by name.

    With replicas, each stage may be shared by the nodes that would end it soonest, a few at most, and the
    batch may be cut finer for that. Its micro-batches are dealt (`dealing.py`) to one node more as long as
    that gains.
    """

    name = "earliest-finish"

    def __init__(self, replicas: int = 1) -> None:
        """Make a policy.

        Args:
            replicas: most nodes that share a stage; with 1, each stage stands on one node.
        """
        self._replicas = replicas
        self._regrouper = Regrouper()

    @override
    def confirm(
        self, request: PlacementRequest, foreseen: ForeseenPlacement, cluster: ClusterView, now_ms: float
    ) -> Placement | None:
        """Take over what the splitter has found by the same search, where nothing has changed."""
        return confirmed(request, foreseen, cluster, now_ms, replicas=self._replicas)

    @override
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        """Choose deterministically."""
        usable = cluster.columns.usable(request.avoid)
        if not np.count_nonzero(usable):
            return no_usable_node(request, cluster)
        regrouped = self._regrouper.schedule(request, cluster, now_ms, usable)
        best = _among_few(request, cluster, now_ms, usable)
        if best is None:
            room = Room(request.job, cluster.columns, usable)
            if regrouped is None and (nowhere := room.without) is not None:
                return self._no_room(request, cluster, nowhere)
            board = Board(_schedule(request, cluster, now_ms), usable, room)
            best = board.schedule
            without_room = board.put_all()
            if without_room is not None:
                packed = _largest_first(request, cluster, now_ms, usable) or regrouped
                if packed is None:
                    return self._no_room(request, cluster, without_room)
                best = packed
            if len(request.job.variant.stages) > 1:
                best = _on_a_single_node(request, cluster, now_ms, board, best)
        if regrouped is not None and (
            (loads(best) and can_wait(regrouped))  # what is loaded now serves the tasks that follow
            or regrouped.response_ms < best.response_ms
        ):
            best = regrouped
        job = best.job
        most = min(self._replicas, MAX_PLACED // len(job.variant.stages))
        if most > 1 and job.batch > 1:
            again = replace(request, job=job)
            best = _shared(again, cluster, now_ms, usable, best, most=most)
        return Placement.of(best)

    def _no_room(self, request: PlacementRequest, cluster: ClusterView, stage: Stage) -> Infeasible:
        units = self._regrouper.units(request.job)
        return no_grouping(request, cluster, units) if units else no_room(request, cluster, stage)


def _schedule(request: PlacementRequest, cluster: ClusterView, now_ms: float) -> StageSchedule:
    return StageSchedule(cluster, request.job, now_ms, request.start_ms, request.due_ms)


def _board(request: PlacementRequest, cluster: ClusterView, now_ms: float, usable: Flags) -> Board:
    return Board(_schedule(request, cluster, now_ms), usable)


def _among_few(
    request: PlacementRequest, cluster: ClusterView, now_ms: float, usable: Flags
) -> StageSchedule | None:
    """Return the best schedule where few nodes may be used; None if they are many, or lack memory."""
    if np.count_nonzero(usable) > few_nodes.FEW_NODES:
        return None
    names = cluster.columns.chosen(usable)
    best = _schedule(request, cluster, now_ms)
    if few_nodes.put_where_first(best, names) is not None:
        return None
    if len(request.job.variant.stages) == 1 or len(names) == 1:
        return best
    best_ms = best.response_ms
    for name in names:
        alone = _schedule(request, cluster, now_ms)
        if few_nodes.put_all_on(alone, name):
            alone_ms = alone.response_ms
            if ahead(now_ms + alone_ms, now_ms + best_ms):
                best, best_ms = alone, alone_ms
    return best


def _largest_first(
    request: PlacementRequest, cluster: ClusterView, now_ms: float, usable: Flags
) -> StageSchedule | None:
    """Return the schedule in which the stage that needs most memory chooses first."""
    job = request.job
    packing = _board(request, cluster, now_ms, usable)
    rank = packing.columns.rank
    chosen: dict[str, str] = {}
    for stage in sorted(job.variant.stages, key=lambda stage: -job.fragments[stage.name].peak_memory_bytes):
        room = np.flatnonzero(packing.fits(stage))
        if not len(room):
            return None
        work_ms = packing.work_ms(stage)
        index = int(room[np.lexsort((rank[room], (packing.free_ms + work_ms)[room]))[0]])
        chosen[stage.name] = packing.columns.names[index]
        packing.reserve(stage, index, float(work_ms[index]))
    schedule = _schedule(request, cluster, now_ms)
    for stage in job.variant.stages:
        schedule.put(stage, schedule.offer(stage, chosen[stage.name]))
    return schedule


def _on_a_single_node(
    request: PlacementRequest, cluster: ClusterView, now_ms: float, board: Board, best: StageSchedule
) -> StageSchedule:
    """Return the best schedule with all stages on one node, if that beats `best`."""
    stages = request.job.variant.stages
    best_ms = best.response_ms
    for index, soonest_ms in board.alone_before(now_ms + best_ms):
        if not ahead(soonest_ms, now_ms + best_ms):
            break
        schedule, name = _schedule(request, cluster, now_ms), board.columns.names[index]
        for stage in stages:
            schedule.put(stage, schedule.offer(stage, name))
        response_ms = schedule.response_ms
        if response_ms < best_ms:
            best, best_ms = schedule, response_ms
    return best


def _shared(
    request: PlacementRequest,
    cluster: ClusterView,
    now_ms: float,
    usable: Flags,
    best: StageSchedule,
    *,
    most: int,
) -> StageSchedule:
    """Return the best schedule in which up to `most` nodes share a stage, if that beats `best` clearly."""
    best_ms = best.response_ms
    for job in _cuts(request.job):
        board = _board(replace(request, job=job), cluster, now_ms, usable)
        for stage in job.variant.stages:
            offer = _best_shared_offer(board, stage, most)
            if offer is None:
                break
            board.put(stage, offer)
        else:
            response_ms = board.schedule.response_ms
            if _gains(response_ms, best_ms):
                best, best_ms = board.schedule, response_ms
    return best


def _best_shared_offer(board: Board, stage: Stage, most: int) -> Offer | None:
    """Return the best offer of one node, of two, and so on while each further one gains enough."""
    best = board.best_offer(stage)
    if best is None:
        return None
    now_ms = board.schedule.now_ms
    names = board.soonest_nodes(stage, most)
    for count in range(2, len(names) + 1):
        offer = board.schedule.offer_shared(stage, names[:count])
        if not _gains(offer.end_ms - now_ms, best.end_ms - now_ms):
            break
        best = offer
    return best


def _gains(shared_ms: float, before_ms: float) -> bool:
    return shared_ms < before_ms - max(HOP_MS, LEAST_GAIN * before_ms)


def _cuts(job: Job) -> Iterator[Job]:
    """Yield a job cut into micro-batches as its variant says, then finer."""
    size = job.micro_batch
    finest = -(-job.batch // FINEST)
    while -(-job.batch // size) <= MAX_DEALT:
        if size < job.batch:
            yield replace(job, cut=size)
        if size <= finest:
            return
        size = max(finest, size // 2)
