"""Which stages of a network would stand where on idle nodes, what they need, and what does not fit. Pure."""

from dataclasses import dataclass

from splitplace.planning.question import Question
from splitplace.policies.cluster import ClusterView
from splitplace.policies.memory import described_bytes, is_prepared
from splitplace.policies.placement import Infeasible, Placement, PlacementRequest, place, placement_policy
from splitplace.policies.prediction import Job
from splitplace.policies.splitting import allows
from splitplace.simulator.monitor import Monitor
from splitplace.simulator.workload import slowed
from splitplace.simulator.world import Surroundings, World


@dataclass(frozen=True, slots=True)
class StandingStage:
    """A stage with the nodes that would run it."""

    stage: str
    nodes: tuple[str, ...]
    memory_bytes: int
    """Private memory on each of them."""
    mapped_bytes: int
    """Weights that a node maps beside that: page cache."""


@dataclass(frozen=True, slots=True)
class StandingVariant:
    """A way to run the network, on idle nodes."""

    variant: str
    accuracy: float
    stages: tuple[StandingStage, ...] = ()
    predicted_ms: float | None = None
    """None where it fits nowhere."""
    reason: str = ""
    """Why it fits nowhere."""


def standing(question: Question) -> tuple[StandingVariant, ...]:
    """Return where the stages of each variant would stand, in the order of the manifest."""
    known = question.calibration
    workload = slowed(question.workload, known.work_factor)
    (application,) = [each for each in workload.applications if each.name == question.application.name]
    surroundings = Surroundings(question.cluster.assumed_broker_link, "deadline", through_broker=True)
    machines = question.cluster.machines()
    world = World(machines.expand(question.cluster.count), surroundings)
    view = ClusterView()
    tells_broker = question.cluster.broker_link is not None
    monitor = Monitor(world, workload.applications, known.hop_ms, tells_broker=tells_broker)
    view.apply(monitor.snapshot(), 0.0)
    policy = placement_policy("earliest-finish", replicas=question.scenario((), 0.0).replicas)
    found = []
    for variant in application.variants:
        if question.arms is not None and not allows(question.arms, variant.name, variant.kind):
            continue
        request = PlacementRequest("plan.0", Job(application, variant, question.batch), 2 * known.hop_ms)
        placed = place(policy, request, view, 0.0)
        if isinstance(placed, Infeasible):
            found.append(StandingVariant(variant.name, variant.accuracy, reason=placed.reason))
            continue
        found.append(
            StandingVariant(
                variant.name,
                variant.accuracy,
                stages_of(placed),
                placed.prediction.response_ms + known.intake.median,
            )
        )
    return tuple(found)


def stages_of(placed: Placement) -> tuple[StandingStage, ...]:
    """Return the stages of a placement with their nodes and what they need there."""
    stages = []
    for stage in placed.job.variant.stages:
        fragment = placed.job.fragments[stage.name]
        nodes = tuple(dict.fromkeys(share.node for share in placed.shares if share.stage == stage.name))
        mapped = fragment.weight_bytes if is_prepared(fragment) else 0
        stages.append(StandingStage(stage.name, nodes, described_bytes(fragment), mapped))
    return tuple(stages)
