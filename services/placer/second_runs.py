"""Places what is overdue or lost of a task a second time. Pure."""

from dataclasses import dataclass

from splitplace.messages.application import Application
from splitplace.messages.cluster import PrepareFragments
from splitplace.messages.second_run import SecondPart, SecondRun, TaskLagging
from splitplace.messages.task import TaskPlaced
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import Infeasible, Placement, PlacementPolicy, PlacementRequest
from splitplace.policies.placement.foreseen import stage_placements
from splitplace.policies.placement.second_runs import (
    disturbs_others,
    is_in_time,
    laggards,
    overdue_work,
)
from splitplace.policies.stage_work import StageWork, stage_work
from splitplace.services.placer.hints import missing_hints

HOPS_TO_DISPATCH = 1
"""Placement to gateway: then the inputs are sent."""


@dataclass(frozen=True, slots=True)
class SecondPlacing:
    """A second run to publish, and hints to nodes that have not loaded what they will need."""

    second: SecondRun
    prepare: tuple[PrepareFragments, ...] = ()


def place_again(
    application: Application,
    placed: TaskPlaced,
    lagging: TaskLagging,
    policy: PlacementPolicy,
    cluster: ClusterView,
    *,
    now_ms: float,
    due_ms: float,
    avoid: frozenset[str],
) -> SecondPlacing | None:
    """Place what is overdue on nodes that have no part in it; None if some of it cannot be in time there.

    Without such nodes, it may run on those of its own that have nothing left to do: the slow one has work.
    What was lost with a replica may run on any other node, busy or not: else all of the task would run again.
    The ledger of the cluster then has both runs.

    Args:
        application: the manifest.
        placed: the first run.
        lagging: what is overdue of it.
        policy: chooses the nodes.
        cluster: what the nodes are busy with.
        now_ms: the present moment.
        due_ms: when the task must be answered.
        avoid: nodes that failed the task before.
    """
    parts = overdue_work(application, placed, lagging.outputs)
    if not parts:
        return None
    lost = lagging.lost
    behind = frozenset({lost}) if lost is not None else laggards(application, placed, lagging.outputs)
    first_work = stage_work(application, placed)
    start_ms = now_ms + HOPS_TO_DISPATCH * cluster.hop_ms
    waits_ms = {name: cluster.wait_ms(name, now_ms) for name in cluster.nodes}

    def note(*work: StageWork) -> None:
        cluster.placed(lagging.task, lagging.attempt, work, now_ms, due_ms=due_ms)

    def place_without(nodes: frozenset[str]) -> list[Placement]:
        """Place all parts; nothing where one of them has no place."""
        work: tuple[StageWork, ...] = ()
        made: list[Placement] = []
        for part in parts:
            request = PlacementRequest(lagging.task, part.job, start_ms, due_ms, avoid | nodes)
            found = policy.place(request, cluster, now_ms)
            if (
                isinstance(found, Infeasible)
                or not is_in_time(found, request, now_ms)
                or (lost is None and disturbs_others(found, waits_ms))
            ):
                if made:
                    note(*first_work)
                return []
            made.append(found)
            work = (*work, *found.stage_work())
            # Without the first run: on these nodes it is done, and noted anew it would count in full.
            note(*work)
        note(*first_work, *work)
        return made

    made = place_without(behind)
    if not made and lost is None:
        states = cluster.nodes
        with_work = frozenset(name for name in behind if name in states and states[name].queue_ms > 0)
        if with_work and with_work < behind:
            behind, made = with_work, place_without(with_work)
    if not made:
        return None
    second = SecondRun(
        task=lagging.task,
        attempt=lagging.attempt,
        parts=tuple(
            SecondPart(
                micro_batches=part.micro_batches,
                placed=TaskPlaced(
                    task=lagging.task,
                    attempt=lagging.attempt,
                    application=application.name,
                    variant=placed.variant,
                    batch=part.job.batch,
                    micro_batch=part.job.micro_batch,
                    policy=policy.name,
                    stages=stage_placements(found),
                    predicted_ms=found.prediction.response_ms,
                    reason=f"{'lost' if lost else 'overdue'} on {', '.join(sorted(behind))}"[:1000],
                ),
            )
            for part, found in zip(parts, made, strict=True)
        ),
        lost=lost,
    )
    hints = (missing_hints(cluster, lagging.task, lagging.attempt, found) for found in made)
    return SecondPlacing(second, tuple(hint for several in hints for hint in several))
