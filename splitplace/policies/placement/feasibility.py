"""Find the nodes that can run a stage, or explain why none can."""

import numpy as np

from splitplace.messages.application import Stage
from splitplace.policies.cluster import ClusterView
from splitplace.policies.memory import least_preparing_bytes, megabytes
from splitplace.policies.placement.interface import Infeasible, PlacementRequest
from splitplace.policies.prediction import StageSchedule


def candidates(request: PlacementRequest, cluster: ClusterView) -> tuple[str, ...] | Infeasible:
    """Return the live nodes that have a speed and a link and need not be avoided."""
    columns = cluster.columns
    names = tuple(columns.names[index] for index in np.flatnonzero(columns.usable(request.avoid)).tolist())
    return names or no_usable_node(request, cluster)


def no_usable_node(request: PlacementRequest, cluster: ClusterView) -> Infeasible:
    """Explain why no node at all can be used."""
    if not cluster.known:
        return Infeasible("the state of the cluster is not known yet", temporary=True)
    if not cluster.nodes:
        return Infeasible("no edge node is online", temporary=True)
    avoided = sorted(request.avoid & cluster.nodes.keys())
    reason = f"it failed on {', '.join(avoided)} before" if avoided else "none has a speed and a link"
    return Infeasible(f"{len(cluster.nodes)} edge nodes are online, but {reason}", temporary=True)


def feasible(schedule: StageSchedule, stage: Stage, names: tuple[str, ...]) -> list[str]:
    """Return the nodes that have memory for a stage, beside the stages that were put before."""
    return [name for name in names if schedule.fits(stage, name)]


def no_room(request: PlacementRequest, cluster: ClusterView, stage: Stage) -> Infeasible:
    """Explain why a stage fits no usable node: they are too small, or their memory is in use."""
    columns = cluster.columns
    usable = columns.usable(request.avoid)
    fragment = request.job.fragments[stage.name]
    needs = columns.needed_bytes(fragment)
    budgets = np.where(usable, columns.memory_bytes, -np.inf)
    free = np.where(usable, columns.free_bytes(), -np.inf)
    largest, freest = int(budgets.argmax()), int(free.argmax())
    needed = float(needs[largest])
    if np.isinf(needed):
        needed = least_preparing_bytes(fragment)
    wanted = f"{request.job.variant.name}: stage {stage.name} needs {megabytes(needed)} of memory"
    if needed > budgets[largest]:
        there = f"the largest node ({columns.names[largest]}) has {megabytes(budgets[largest])}"
        return Infeasible(f"{wanted}, {there}", temporary=False)
    if (free >= budgets).all():
        return Infeasible(f"{wanted} beside its other stages: the nodes are too small", temporary=False)
    left = f"{megabytes(max(0.0, free[freest]))} at most (on {columns.names[freest]})"
    return Infeasible(f"{wanted}, tasks that run leave {left}", temporary=True)
