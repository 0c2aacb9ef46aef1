"""Each stage goes where it is predicted to finish first."""

from collections.abc import Iterable

from messages.application import Stage
from policies.cluster import ClusterView
from policies.placement.feasibility import candidates, feasible, no_room
from policies.placement.interface import Infeasible, Placement, PlacementRequest, Unlearned
from policies.prediction import Offer, Schedule


class EarliestFinish(Unlearned):
    """A list scheduler in the manner of HEFT (Topcuoglu et al. 2002).

    Stages in topological order each take the node on which the last of their micro-batches is predicted to
    finish first, given the stages before. That is greedy: it may scatter a chain over nodes that are each a
    little faster and lose more on the way. So every single node that could hold all stages is tried as well,
    and the better placement wins. Among equals the node that is free first wins, then the first by name.
    """

    name = "earliest-finish"

    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        """See `PlacementPolicy`. Deterministic."""
        names = candidates(request, cluster)
        if isinstance(names, Infeasible):
            return names
        best = _stage_by_stage(request, cluster, now_ms, names)
        if isinstance(best, Stage):
            packed = _largest_first(request, cluster, now_ms, names)
            if packed is None:
                return no_room(request, cluster, best, names)
            best = packed
        if len(request.job.variant.stages) > 1:
            best = _on_a_single_node(request, cluster, now_ms, names, best)
        return Placement({stage: offer.node for stage, offer in best.offers.items()}, best.prediction())


def _schedule(request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Schedule:
    return Schedule(cluster, request.job, now_ms, request.start_ms, request.due_ms)


def _stage_by_stage(
    request: PlacementRequest, cluster: ClusterView, now_ms: float, names: tuple[str, ...]
) -> Schedule | Stage:
    """The greedy schedule, or the stage for which there was no room."""
    schedule = _schedule(request, cluster, now_ms)
    for stage in request.job.variant.stages:
        best = _best_offer(schedule, stage, feasible(schedule, stage, names))
        if best is None:
            return stage
        schedule.put(stage, best)
    return schedule


def _best_offer(schedule: Schedule, stage: Stage, names: Iterable[str]) -> Offer | None:
    """The offer that ends first. Nodes that cannot win, however fast their links are, are not asked."""
    bounds = sorted((schedule.free_ms(name) + schedule.work_ms(stage, name), name) for name in names)
    best: Offer | None = None
    best_key = (0.0, 0.0, "")
    for bound, name in bounds:
        if best is not None and bound > best.end_ms:
            break
        offer = schedule.offer(stage, name)
        key = (offer.end_ms, schedule.free_ms(name), name)
        if best is None or key < best_key:
            best, best_key = offer, key
    return best


def _largest_first(
    request: PlacementRequest, cluster: ClusterView, now_ms: float, names: tuple[str, ...]
) -> Schedule | None:
    """Where the greedy order ran out of room: the stage that needs most memory chooses first."""
    job = request.job
    packing = _schedule(request, cluster, now_ms)
    chosen: dict[str, str] = {}
    by_size = sorted(job.variant.stages, key=lambda stage: -job.fragments[stage.name].peak_memory_bytes)
    for stage in by_size:
        room = feasible(packing, stage, names)
        if not room:
            return None
        chosen[stage.name] = min(
            room, key=lambda name: (packing.free_ms(name) + packing.work_ms(stage, name), name)
        )
        packing.reserve(stage, chosen[stage.name])
    schedule = _schedule(request, cluster, now_ms)
    for stage in job.variant.stages:
        schedule.put(stage, schedule.offer(stage, chosen[stage.name]))
    return schedule


def _on_a_single_node(
    request: PlacementRequest,
    cluster: ClusterView,
    now_ms: float,
    names: tuple[str, ...],
    best: Schedule,
) -> Schedule:
    """The best schedule with all stages on one node, where that beats `best`."""
    stages = request.job.variant.stages
    best_ms = best.prediction().response_ms
    for name in names:
        schedule = _schedule(request, cluster, now_ms)
        work_ms = sum([schedule.work_ms(stage, name) for stage in stages])
        if schedule.free_ms(name) - now_ms + work_ms >= best_ms:
            continue
        for stage in stages:
            if not schedule.fits(stage, name):
                break
            schedule.put(stage, schedule.offer(stage, name))
        else:
            response_ms = schedule.prediction().response_ms
            if response_ms < best_ms:
                best, best_ms = schedule, response_ms
    return best
