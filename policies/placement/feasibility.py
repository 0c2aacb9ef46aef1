"""Which nodes can hold which stages, and, where none can, why."""

from messages.application import Stage
from policies.cluster import ClusterView
from policies.placement.interface import Infeasible, PlacementRequest
from policies.prediction import Schedule


def candidates(request: PlacementRequest, cluster: ClusterView) -> tuple[str, ...] | Infeasible:
    """Living nodes that have a speed and a link and need not be avoided."""
    if not cluster.known:
        return Infeasible("the state of the cluster is not known yet", temporary=True)
    if not cluster.nodes:
        return Infeasible("no edge node is online", temporary=True)
    names = tuple(
        name
        for name, state in cluster.nodes.items()
        if name not in request.avoid and state.score > 0 and state.link_megabytes_per_second > 0
    )
    if names:
        return names
    avoided = sorted(request.avoid & cluster.nodes.keys())
    reason = f"it failed on {', '.join(avoided)} before" if avoided else "none has a speed and a link"
    return Infeasible(f"{len(cluster.nodes)} edge nodes are online, but {reason}", temporary=True)


def feasible(schedule: Schedule, stage: Stage, names: tuple[str, ...]) -> list[str]:
    """Those nodes that have room for a stage, beside the stages that were put before."""
    return [name for name in names if schedule.fits(stage, name)]


def no_room(
    request: PlacementRequest, cluster: ClusterView, stage: Stage, names: tuple[str, ...]
) -> Infeasible:
    """Why a stage fits none of the nodes: they are too small, or their memory is in use."""
    needed = request.job.fragments[stage.name].peak_memory_bytes
    largest = max(names, key=lambda name: cluster.nodes[name].memory_budget_bytes)
    budget = cluster.nodes[largest].memory_budget_bytes
    wanted = f"{request.job.variant.name}: stage {stage.name} needs {_megabytes(needed)} of memory"
    if needed > budget:
        return Infeasible(f"{wanted}, the largest node ({largest}) has {_megabytes(budget)}", temporary=False)
    freest = max(names, key=cluster.free_bytes)
    free = _megabytes(max(0, cluster.free_bytes(freest)))
    alone = all(cluster.free_bytes(name) >= cluster.nodes[name].memory_budget_bytes for name in names)
    if alone:
        return Infeasible(f"{wanted} beside its other stages: the nodes are too small", temporary=False)
    return Infeasible(f"{wanted}, tasks that run leave {free} at most (on {freest})", temporary=True)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"
