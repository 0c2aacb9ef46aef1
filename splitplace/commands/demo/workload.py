"""Choose deadlines and batches for the sensors of a demo, to suit each application. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState, NodeState
from splitplace.policies.cluster import ClusterView
from splitplace.policies.cost import HOP_MS
from splitplace.policies.placement import Placement, PlacementRequest, placement_policy
from splitplace.policies.prediction import Job

LARGEST_BATCH = 128
"""Images in the largest task of the lightest application; other applications get about as much work."""

LARGEST_WORK = 4000.0
"""Largest work of one task in its cheapest variant, in MFLOP (ms of computing times GFLOP/s of the node)."""

SAFETY = 1.2
"""Factor of tight deadlines over the fastest prediction on an idle cluster."""

OVERHEAD_MS = 8.0
"""Overhead of an answer that predictions leave out: journal, codecs, event loops on a busy machine."""

_HOPS_BEFORE = 2
_MANY = 64


@dataclass(frozen=True, slots=True)
class TightDeadline:
    """A deadline that can just be met; the sensor draws from three quarters of it to 25 times as much."""

    ms: float
    ms_per_image: float


def largest_batch(application: Application) -> int:
    """Return the number of images in the largest task of an application."""
    works = [
        sum(application.fragment(stage.fragment).milliseconds_per_image for stage in variant.stages)
        for variant in application.variants
    ]
    work = min(works) * application.reference_score
    return max(1, min(LARGEST_BATCH, round(LARGEST_WORK / work))) if work > 0 else LARGEST_BATCH


def tight_deadline(application: Application, nodes: Iterable[NodeState]) -> TightDeadline | None:
    """Return the predicted time of the application's fastest variant on these nodes, when they are idle.

    Args:
        application: The application.
        nodes: Nodes as they reported themselves. Their queues and loaded fragments make no difference.

    Returns:
        The deadline, or None if no variant can run on them.
    """
    cluster = ClusterView()
    cluster.apply(ClusterState(sequence=0, nodes=tuple(idle(application, node) for node in nodes)), 0.0)
    one, many = (_fastest_ms(application, batch, cluster) for batch in (1, _MANY))
    if one is None or many is None:
        return None
    per_image = max(0.0, many - one) / (_MANY - 1)
    return TightDeadline(OVERHEAD_MS + SAFETY * max(0.0, one - per_image), SAFETY * per_image)


def idle(application: Application, node: NodeState) -> NodeState:
    """Return a node as it would be with all fragments loaded and nothing to do."""
    fragments = tuple(fragment.sha256 for fragment in application.fragments)
    changes = {
        "silent_ms": 0.0,
        "queue_ms": 0.0,
        "queue_length": 0,
        "round_trip_ms": 0.0,  # as measured while everything starts at once
        "loads": (),
        "loaded": fragments,
        "timings": (),
    }
    return node.model_copy(update=changes)


def _fastest_ms(application: Application, batch: int, cluster: ClusterView) -> float | None:
    policy = placement_policy("earliest-finish")
    found = [
        policy.place(
            PlacementRequest("t", Job(application, variant, batch), _HOPS_BEFORE * HOP_MS), cluster, 0.0
        )
        for variant in application.variants
    ]
    return min((each.prediction.response_ms for each in found if isinstance(each, Placement)), default=None)
