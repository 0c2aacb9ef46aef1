"""Where the micro-batches of a task that are overdue run a second time, if anywhere.

They run on nodes that have no part in what is overdue, and only if that is in time and costs others little:
the nodes must be almost free. So a cluster that is busy everywhere runs nothing twice.
"""

from math import inf

from splitplace.messages.application import Application
from splitplace.messages.task import TaskPlaced
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement.interface import Infeasible, Placement, PlacementPolicy, PlacementRequest
from splitplace.policies.prediction import Job

BUSY_SHARE = 0.25
"""Most of the predicted time of a second run that may be waiting for other work on its nodes."""


def laggards(placed: TaskPlaced, micro_batches: tuple[int, ...]) -> frozenset[str]:
    """Return the nodes that micro-batches pass; one at least is behind."""
    paths = placed.paths()
    return frozenset(node for number in micro_batches for node in paths[number].values())


def overdue_job(application: Application, placed: TaskPlaced, micro_batches: tuple[int, ...]) -> Job | None:
    """Return a job of some micro-batches of a task alone; None if the application has no such variant.

    They must be ascending numbers of the placement. All but the last of a task are of the same size.
    """
    variant = next((known for known in application.variants if known.name == placed.variant), None)
    if variant is None or len(variant.sinks) != 1:
        return None
    last = placed.micro_batch_count - 1
    rest = placed.batch - last * placed.micro_batch
    batch = placed.micro_batch * len(micro_batches)
    if last in micro_batches:
        batch += rest - placed.micro_batch
    return Job(application, variant, batch, cut=placed.micro_batch)


def second_placement(
    policy: PlacementPolicy, request: PlacementRequest, cluster: ClusterView, now_ms: float
) -> Placement | None:
    """Return where a job runs a second time; None if that would come too late or disturb others.

    Args:
        policy: chooses; it must not cut the job otherwise.
        request: the job of what is overdue; `avoid` has the laggards.
        cluster: what the nodes are busy with.
        now_ms: the present moment.
    """
    found = policy.place(request, cluster, now_ms)
    if isinstance(found, Infeasible) or found.job.micro_batch != request.job.micro_batch:
        return None
    response_ms = found.prediction.response_ms
    if response_ms == inf or now_ms + response_ms > request.due_ms:
        return None
    waits_ms = max(cluster.ready_ms(name, now_ms) - now_ms for name in found.node_names)
    return found if waits_ms <= BUSY_SHARE * response_ms else None
