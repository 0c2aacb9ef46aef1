"""Random nodes, for comparison."""

from random import Random

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

_TRIES = 8


class RandomPlacement(StatelessPlacement):
    """Each stage goes to a node drawn uniformly among those with memory for it.

    If earlier draws leave no memory for a later stage, it draws again, a few times.
    """

    name = "random"

    def __init__(self, random: Random) -> None:
        self._random = random

    @override
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        names = candidates(request, cluster)
        if isinstance(names, Infeasible):
            return names
        stuck = request.job.variant.stages[0]
        for _ in range(_TRIES):
            schedule = StageSchedule(cluster, request.job, now_ms, request.start_ms, request.due_ms)
            for stage in request.job.variant.stages:
                room = feasible(schedule, stage, names)
                if not room:
                    stuck = stage
                    break
                schedule.put(stage, schedule.offer(stage, self._random.choice(room)))
            else:
                return Placement.of(schedule)
        return no_room(request, cluster, stuck)
