"""Nodes in turn, for comparison."""

from typing_extensions import override

from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement.feasibility import candidates, feasible, no_room
from splitplace.policies.placement.interface import (
    Infeasible,
    Placement,
    PlacementRequest,
    StatelessPlacement,
)
from splitplace.policies.prediction import StageSchedule


class RoundRobin(StatelessPlacement):
    """Each stage goes to the next node, in the order of names, that has memory for it."""

    name = "round-robin"

    def __init__(self) -> None:
        """Begin with the first node."""
        self._last = ""

    @override
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        names = candidates(request, cluster)
        if isinstance(names, Infeasible):
            return names
        schedule = StageSchedule(cluster, request.job, now_ms, request.start_ms, request.due_ms)
        last = self._last
        for stage in request.job.variant.stages:
            room = feasible(schedule, stage, names)
            if not room:
                return no_room(request, cluster, stage)
            last = min(room, key=lambda name: (name <= last, name))
            schedule.put(stage, schedule.offer(stage, last))
        self._last = last
        return Placement.of(schedule)
