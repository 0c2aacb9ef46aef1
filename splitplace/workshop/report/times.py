"""Three times of a variant, computed from its manifest. Pure: nothing is measured."""

from dataclasses import dataclass

from splitplace.messages.application import INPUT, Application, Variant
from splitplace.messages.cluster import ClusterState, NodeState
from splitplace.policies.cluster import ClusterView
from splitplace.policies.prediction import Job, predict
from splitplace.workshop.cutting.balance import Device

BATCH = 32
"""Pictures in the task whose answer is predicted."""

_BOARD = Device()
_MEGABYTES_PER_SECOND = _BOARD.link_bytes_per_ms / 1000
_ANY_MEMORY = 1 << 40


@dataclass(frozen=True)
class Times:
    """Times of one variant, in milliseconds."""

    path_ms: float
    """Computing one picture of a full micro-batch on the reference machine: the slowest path from the input
    to an answer, with every fragment on its own node."""
    slowest_stage_ms: float
    """The slowest single fragment, likewise: the limit for a stream of pictures."""
    answer_ms: float
    """Predicted answer to a task of `BATCH` pictures on idle small boards (`cutting.balance.Device`), one for
    each stage, with all fragments loaded: computing, sending and hops. Infinite without a reference score."""


def times_of(application: Application, variant: Variant) -> Times:
    """Compute the times of a variant of an application."""
    path_ms: dict[str, float] = {INPUT: 0.0}
    stage_ms = {}
    for stage in variant.stages:
        fragment = application.fragment(stage.fragment)
        stage_ms[stage.name] = (
            fragment.milliseconds_per_image + fragment.milliseconds_per_call / variant.micro_batch
        )
        path_ms[stage.name] = path_ms[stage.source] + stage_ms[stage.name]
    return Times(max(path_ms.values()), max(stage_ms.values()), _answer_ms(application, variant))


def _answer_ms(application: Application, variant: Variant) -> float:
    boards = {stage.name: f"board-{index}" for index, stage in enumerate(variant.stages)}
    cluster = ClusterView()
    nodes = tuple(_board(name, application, variant) for name in boards.values())
    cluster.apply(ClusterState(sequence=0, nodes=nodes), 0.0)
    return predict(cluster, Job(application, variant, BATCH), boards, 0.0).response_ms


def _board(name: str, application: Application, variant: Variant) -> NodeState:
    return NodeState(
        node=name,
        boot="0" * 16,
        online=True,
        silent_ms=0.0,
        score=application.reference_score / _BOARD.slowdown,
        memory_budget_bytes=_ANY_MEMORY,
        loaded=tuple({stage.fragment for stage in variant.stages}),
        queue_ms=0.0,
        queue_length=0,
        cpu_ratio=0.0,
        link_megabytes_per_second=_MEGABYTES_PER_SECOND,
        timings=(),
    )
