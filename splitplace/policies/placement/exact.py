"""The placement with the least predicted response, by branch and bound, as a reference for others."""

from dataclasses import dataclass

from typing_extensions import override

from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.placement.feasibility import candidates, feasible
from splitplace.policies.placement.interface import (
    Infeasible,
    Placement,
    PlacementRequest,
    StatelessPlacement,
)
from splitplace.policies.prediction import StageSchedule

MAX_OFFERS = 20_000
"""Limit of (stage, node) offers, about a third of a second."""


class Exact(StatelessPlacement):
    """Depth first over the stages in order, soonest nodes first, beginning with earliest-finish's answer.

    No stage ends before its source, so a branch is cut when its stages end later than the best schedule. That
    is exact for small jobs on small clusters (four stages on ten nodes). After `MAX_OFFERS` offers, the best
    schedule so far is the answer, never worse than that of earliest-finish. It blocks everything else
    meanwhile, so it is for comparison.
    """

    name = "exact"

    @override
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        """Choose deterministically."""
        first = EarliestFinish().place(request, cluster, now_ms)
        names = candidates(request, cluster)
        if isinstance(names, Infeasible):
            return names
        best_ms = first.prediction.response_ms + now_ms if isinstance(first, Placement) else float("inf")
        search = _Search(names, best_ms)
        search.extend(StageSchedule(cluster, request.job, now_ms, request.start_ms, request.due_ms), 0)
        if search.best is None:
            return first
        return Placement.of(search.best)


@dataclass(slots=True)
class _Search:
    """The best schedule so far."""

    names: tuple[str, ...]
    best_ms: float
    best: StageSchedule | None = None
    offers: int = 0

    def extend(self, schedule: StageSchedule, place: int) -> None:
        """Try all nodes for a stage and, below each, for those after it."""
        stages = schedule.job.variant.stages
        if place == len(stages):
            self.best, self.best_ms = schedule, schedule.response_ms + schedule.now_ms
            return
        stage = stages[place]
        offers = [schedule.offer(stage, name) for name in feasible(schedule, stage, self.names)]
        self.offers += len(offers)
        for offer in sorted(offers, key=lambda offer: (offer.end_ms, offer.node)):
            if offer.end_ms >= self.best_ms or self.offers > MAX_OFFERS:
                return
            further = schedule.copy()
            further.put(stage, offer)
            self.extend(further, place + 1)
