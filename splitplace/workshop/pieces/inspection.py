"""Inspect a network: where it can be cut, what lies between, and how to divide it among nodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from splitplace.workshop.cutting.balance import Chain, Device, Target, partition
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.pieces.chain import MeasuredNetwork
from splitplace.workshop.pieces.places import Place
from splitplace.workshop.pieces.plan import CutPlan, plan_chain

_SHORT_NAMES = {
    "BatchNormalization": "BatchNorm",
    "LayerNormalization": "LayerNorm",
    "AveragePool": "AvgPool",
    "DequantizeLinear": "Dequantize",
    "QuantizeLinear": "Quantize",
}
"""Usual short names of operators."""


@dataclass(frozen=True)
class Segment:
    """The part of a network between two neighbouring places to cut."""

    operators: tuple[str, ...]
    """Types of its ONNX nodes, in order."""
    milliseconds: float
    """Time for one image, inside a run of the whole."""
    flops_per_image: int
    weight_bytes: int

    @property
    def label(self) -> str:
        """The operators, with equal neighbours counted."""
        return describe(self.operators)


@dataclass(frozen=True)
class InspectedPiece:
    """A piece of a network, as it is stored or would be."""

    chain: str
    """Name of its chain."""
    number: int
    """Place in the chain, from 1."""
    milliseconds: float
    """Time for one image inside a run of the whole."""
    weight_bytes: int
    """Memory of its weights."""
    memory_bytes: int
    """Weights, plus the peak of live activations for a micro-batch."""
    crossing: tuple[str, ...]
    """Tensors that it hands on."""
    crossing_bytes: int
    """Their size for one image."""
    cut_by: tuple[str, ...] = ()
    """Variants that are cut after it."""


@dataclass(frozen=True)
class StoredStage:
    """A stage of an application's variant, and the memory that a node needs for it."""

    variant: str
    stage: str
    weight_bytes: int
    budget_bytes: int
    """The smallest memory budget of a node that can prepare and run it."""
    private_bytes: int
    """What a node reserves for it once it is loaded, until the node has measured it itself."""
    is_measured: bool
    """Whether that was measured when the application was added; else it follows from weights and tensors."""


@dataclass(frozen=True)
class Inspection:
    """A network as a chain of segments, with a plan for dividing it."""

    name: str
    places: tuple[Place, ...]
    """Where it can be cut, and what crosses there."""
    segments: tuple[Segment, ...]
    """One more than `places`."""
    plan: CutPlan
    pieces: tuple[InspectedPiece, ...] = ()
    """The pieces of the network and, for an application, of its other networks."""
    stored: tuple[StoredStage, ...] = ()
    """The stages of an application's variants."""


def inspect(
    network: MeasuredNetwork, *, name: str, stages: int, target: Target, micro_batch: int
) -> Inspection:
    """Describe what lies between the places where a network can be cut, and plan a chain.

    Args:
        network: From `pieces.chain.measured`.
        name: Name for tables and drawings.
        stages: Number of fragments to plan.
        target: Nodes and links to plan for.
        micro_batch: Images per call.

    Raises:
        GraphError: The graph does not tell a shape or size that is needed.
        CutError: The network cannot be cut into that many stages, or they do not fit into memory.
        TargetError: There are several nodes, but not one for each stage.
    """
    graph = Graph(network.model)
    ends = [place.end for place in network.places]
    kinds = [node.op_type for node in graph.nodes]
    segments = tuple(
        Segment(tuple(kinds[first:end]), time, flops, weights)
        for (first, end), time, flops, weights in zip(
            pairwise((0, *ends, len(kinds))),
            network.milliseconds,
            graph.flops_between(ends),
            network.weight_bytes,
            strict=True,
        )
    )
    plan = plan_chain(network, stages, target, micro_batch=micro_batch)
    return Inspection(name, network.places, segments, plan)


@dataclass(frozen=True)
class Balance:
    """How an existing chain compares with the best possible cut, by computing time alone."""

    slowest_ms: float
    """Time of the chain's slowest stage for one image."""
    best_ms: float
    """Time of the slowest stage of the best chain with as many stages."""

    @property
    def ratio(self) -> float:
        """`slowest_ms / best_ms`; 1 means that no cut is better."""
        return self.slowest_ms / self.best_ms if self.best_ms else 1.0


def balance(network: MeasuredNetwork, cuts: Sequence[int]) -> Balance:
    """Compare a chain that is cut at some places with the best possible cut."""
    alike = Target((Device(slowdown=1.0),), tolerance=0.0)
    free = Chain(network.milliseconds, [0.0] * len(network.places))
    best = partition(free, len(cuts) + 1, alike)
    bounds = pairwise((0, *(cut + 1 for cut in cuts), len(network.milliseconds)))
    return Balance(max(sum(network.milliseconds[first:end]) for first, end in bounds), best.pace_ms)


def describe(operators: Sequence[str]) -> str:
    """Name operators in order, equal neighbours counted: `Relu, 2 Conv, Add`."""
    runs = ((_SHORT_NAMES.get(kind, kind), len(list(same))) for kind, same in groupby(operators))
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in runs)
