"""Find the nodes that can run a stage, or explain why none can."""

from collections.abc import Iterable

import numpy as np

from splitplace.messages.application import Fragment, Stage
from splitplace.policies.cluster import ClusterView
from splitplace.policies.memory import least_budget_bytes, least_preparing_bytes, megabytes
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
    memory = _Memory(request, cluster)
    fragment = request.job.fragments[stage.name]
    needed = float(cluster.columns.needed_bytes(fragment)[memory.largest])
    if np.isinf(needed):
        needed = least_preparing_bytes(fragment)
    wanted = f"{request.job.variant.name}: stage {stage.name} needs {megabytes(needed)} of memory"
    if needed > memory.most:
        return Infeasible(f"{wanted}, {memory.of_largest}", temporary=False)
    if memory.is_idle:
        return Infeasible(f"{wanted} beside its other stages: the nodes are too small", temporary=False)
    return Infeasible(f"{wanted}, tasks that run leave {memory.left}", temporary=True)


def no_grouping(request: PlacementRequest, cluster: ClusterView, units: Iterable[Fragment]) -> Infeasible:
    """Explain why the pieces of a chain fit in no way: stages of the manifest do not tell.

    Args:
        request: What could not be placed.
        cluster: The nodes.
        units: The pieces between the places where a stage may begin.
    """
    memory = _Memory(request, cluster)
    needed = max(map(least_budget_bytes, units))
    wanted = f"{request.job.variant.name}: its largest piece needs {megabytes(needed)} of memory"
    if needed > memory.most:
        return Infeasible(f"{wanted}, {memory.of_largest}", temporary=False)
    if memory.is_idle:
        all_of_them = "all pieces together need more nodes or more memory"
        return Infeasible(f"{wanted}, {memory.of_largest}, but {all_of_them}", temporary=False)
    return Infeasible(
        f"{wanted}, and all of them find no room: tasks that run leave {memory.left}", temporary=True
    )


class _Memory:
    """The memory of the nodes that a task may use."""

    def __init__(self, request: PlacementRequest, cluster: ClusterView) -> None:
        columns = cluster.columns
        usable = columns.usable(request.avoid)
        budgets = np.where(usable, columns.memory_bytes, -np.inf)
        free = np.where(usable, columns.free_bytes(), -np.inf)
        self.largest, freest = int(budgets.argmax()), int(free.argmax())
        """Number of the largest node."""
        self.most = float(budgets[self.largest])
        self.is_idle = bool((free >= budgets).all())
        self.of_largest = f"the largest node ({columns.names[self.largest]}) has {megabytes(self.most)}"
        self.left = f"{megabytes(max(0.0, free[freest]))} at most (on {columns.names[freest]})"
