"""What an application would take on the nodes of a running system, were they idle. Pure.

Each variant is placed as the splitter foresees it (`earliest-finish`), with what the nodes have measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from splitplace.messages.application import Application, Variant, VariantKind
from splitplace.messages.cluster import ClusterState, NodeState
from splitplace.messages.limits import MAX_DEADLINE_MS
from splitplace.planning.kinds import measured
from splitplace.planning.standing import StandingStage, stages_of
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import (
    MOST_REPLICAS,
    Infeasible,
    Placement,
    PlacementPolicy,
    PlacementRequest,
    place,
    placement_policy,
)
from splitplace.policies.prediction import Job, scheduled
from splitplace.services.splitter.core import HOPS_TO_DISPATCH


@dataclass(frozen=True, slots=True)
class IdleVariant:
    """A variant on idle nodes. Times run from the decision to the answer at the gateway."""

    variant: str
    kind: VariantKind
    accuracy: float
    micro_batch: int
    """Inputs in a micro-batch."""
    stages: tuple[StandingStage, ...] = ()
    """Where an input would be computed; empty where it fits nowhere."""
    predicted_ms: float | None = None
    """For one input, with all stages loaded there; None where it fits nowhere."""
    micro_batch_ms: float | None = None
    """The same for a micro-batch, which is placed for itself."""
    first_ms: float | None = None
    """For one input now, with the time to load; None where all is loaded."""
    reason: str = ""
    """Why it fits nowhere."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes that take part, each once, in the order of the stages."""
        return tuple(dict.fromkeys(node for stage in self.stages for node in stage.nodes))


def nodes_as_idle(state: ClusterState) -> ClusterState:
    """Return the usable nodes of a cluster without their queues. Raises NodesError if there are none."""
    nodes = measured(state.usable)
    idle = tuple(node.model_copy(update={"queue_ms": 0.0, "queue_length": 0}) for node in nodes)
    return state.model_copy(update={"nodes": idle})


def on_idle_nodes(application: Application, idle: ClusterState) -> tuple[IdleVariant, ...]:
    """Return what each variant would take on the nodes of `nodes_as_idle`, in the order of the manifest."""
    view = ClusterView()
    view.apply(idle, 0.0)
    policy = placement_policy("earliest-finish", replicas=MOST_REPLICAS)
    return tuple(_variant(application, variant, policy, view, idle) for variant in application.variants)


def _variant(
    application: Application,
    variant: Variant,
    policy: PlacementPolicy,
    view: ClusterView,
    idle: ClusterState,
) -> IdleVariant:
    found = IdleVariant(variant.name, variant.kind, variant.accuracy, variant.micro_batch)
    single = _placed(Job(application, variant, 1), policy, view)
    if isinstance(single, Infeasible):
        return replace(found, reason=single.reason)
    several = _placed(Job(application, variant, variant.micro_batch), policy, view)
    return replace(
        found,
        stages=stages_of(single),
        predicted_ms=_loaded_ms(single, idle),
        micro_batch_ms=None if isinstance(several, Infeasible) else _loaded_ms(several, idle),
        first_ms=None if _is_loaded(single, view) else single.prediction.response_ms,
    )


def _placed(job: Job, policy: PlacementPolicy, view: ClusterView) -> Placement | Infeasible:
    """Place a task that has time to load what is fastest from then on."""
    request = PlacementRequest("inspect.0", job, HOPS_TO_DISPATCH * view.hop_ms, MAX_DEADLINE_MS)
    return place(policy, request, view, 0.0)


def _is_loaded(placed: Placement, view: ClusterView) -> bool:
    fragments = placed.job.fragments
    return all(view.is_loaded(share.node, fragments[share.stage].sha256) for share in placed.shares)


def _loaded_ms(placed: Placement, idle: ClusterState) -> float:
    """Return the time of a placement once its nodes have loaded their stages."""
    hashes = tuple(fragment.sha256 for fragment in placed.job.fragments.values())
    view = ClusterView()
    view.apply(idle.model_copy(update={"nodes": _with_loaded(idle.nodes, hashes)}), 0.0)
    start_ms = HOPS_TO_DISPATCH * view.hop_ms
    schedule = scheduled(view, placed.job, placed.shares, 0.0, start_ms=start_ms, due_ms=inf)
    return schedule.response_ms


def _with_loaded(nodes: Sequence[NodeState], hashes: tuple[str, ...]) -> tuple[NodeState, ...]:
    return tuple(node.model_copy(update={"loaded": (*node.loaded, *hashes)}) for node in nodes)
