"""Placements bred by a genetic algorithm on the predicted response, for comparison."""

from random import Random

from typing_extensions import override

from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement.feasibility import candidates, no_room
from splitplace.policies.placement.interface import (
    Infeasible,
    Placement,
    PlacementRequest,
    StatelessPlacement,
)
from splitplace.policies.prediction import StageSchedule

POPULATION = 20
GENERATIONS = 15
MUTATION = 0.2
"""Probability that a gene is drawn again."""

_Genes = tuple[int, ...]
"""Index of a node for each stage; it stands for the next node that has memory."""


class Genetic(StatelessPlacement):
    """Tournaments of two choose parents, population cross over uniformly, and the best always survives."""

    name = "genetic"

    def __init__(self, random: Random) -> None:
        self._random = random

    @override
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        names = candidates(request, cluster)
        if isinstance(names, Infeasible):
            return names
        length = len(request.job.variant.stages)
        population = [self._drawn(length, len(names)) for _ in range(POPULATION)]
        schedules = {genes: _schedule(request, cluster, now_ms, names, genes) for genes in population}

        def response_ms(genes: _Genes) -> float:
            schedule = schedules[genes]
            return float("inf") if schedule is None else schedule.response_ms

        for _ in range(GENERATIONS):
            children = [min(population, key=response_ms)]
            while len(children) < POPULATION:
                mother, father = (min(self._random.sample(population, 2), key=response_ms) for _ in range(2))
                children.append(self._child(mother, father, len(names)))
            population = children
            for genes in population:
                if genes not in schedules:
                    schedules[genes] = _schedule(request, cluster, now_ms, names, genes)
        best = schedules[min(population, key=response_ms)]
        if best is None:
            largest = max(
                request.job.variant.stages,
                key=lambda stage: request.job.fragments[stage.name].peak_memory_bytes,
            )
            return no_room(request, cluster, largest)
        return Placement.of(best)

    def _drawn(self, length: int, nodes: int) -> _Genes:
        return tuple(self._random.randrange(nodes) for _ in range(length))

    def _child(self, mother: _Genes, father: _Genes, nodes: int) -> _Genes:
        return tuple(
            self._random.randrange(nodes) if self._random.random() < MUTATION else self._random.choice(pair)
            for pair in zip(mother, father, strict=True)
        )


def _schedule(
    request: PlacementRequest, cluster: ClusterView, now_ms: float, names: tuple[str, ...], population: _Genes
) -> StageSchedule | None:
    """Return the schedule of some population; None if a stage does not fit."""
    schedule = StageSchedule(cluster, request.job, now_ms, request.start_ms, request.due_ms)
    for stage, gene in zip(request.job.variant.stages, population, strict=True):
        turned = names[gene:] + names[:gene]
        name = next((name for name in turned if schedule.fits(stage, name)), None)
        if name is None:
            return None
        schedule.put(stage, schedule.offer(stage, name))
    return schedule
