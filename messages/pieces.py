"""A network as a chain of pieces: content-addressed slices of its graph, and what crosses between them.

A piece is two files named by their SHA-256. The *graph file* holds nodes and small weights. The *weights
file* holds the large weights, each at a multiple of `WEIGHT_ALIGNMENT`; a piece without large weights has
none. Neighbouring pieces joined are a stage: one session on one node.
"""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from splitplace.messages.base import Bytes, Milliseconds, Name, NonNegative, Part, Ratio, Sha256
from splitplace.messages.limits import MAX_BUNDLE_NAME_BYTES, MAX_BUNDLE_TENSORS, MAX_PIECES
from splitplace.messages.tensors import TensorName, TensorSpec

WEIGHT_ALIGNMENT = 4096
"""Weights begin at multiples of this in a weights file, so that a node can map them."""

OperatorDomain = Literal["", "ai.onnx.ml", "com.microsoft"]
"""Sets of operators that ONNX Runtime brings; the empty one is ONNX's own."""


class StoredFile(NamedTuple):
    """A file of the model store, as nodes fetch and keep it."""

    sha256: str
    """Its name: the SHA-256 of its content."""
    file_bytes: int
    """Its size."""


class NamedTensor(Part):
    """A tensor that crosses from one piece to the next, without its first dimension, the batch."""

    name: TensorName
    spec: TensorSpec


Bundle = Annotated[tuple[NamedTensor, ...], Field(min_length=1, max_length=MAX_BUNDLE_TENSORS)]
"""All tensors that are alive at one boundary between pieces."""


SeveralTensors = Annotated[tuple[NamedTensor, ...], Field(max_length=MAX_BUNDLE_TENSORS)]
"""Tensors by their names, in order; empty where one tensor without a name says it all."""


def bundle_bytes(bundle: SeveralTensors) -> int:
    """Return the bytes of all tensors of a bundle for one image."""
    return sum(tensor.spec.bytes_per_image for tensor in bundle)


def as_described(bundle: SeveralTensors) -> tuple[TensorSpec, SeveralTensors]:
    """Return a bundle as fragments describe it: its first tensor, and all of them where it has several."""
    return bundle[0].spec, bundle if len(bundle) > 1 else ()


class OperatorSet(Part):
    """A set of operators and its version."""

    domain: OperatorDomain
    version: Annotated[int, Field(ge=1, le=1000)]


class Piece(Part):
    """The smallest stored part of a network: a slice of its graph with its weights."""

    graph: Sha256
    """Graph file: an ONNX model with nodes and small weights and nothing else."""
    graph_bytes: Bytes
    weights: Sha256 | None = None
    """Weights file; None for a piece without large weights."""
    weights_bytes: Bytes = 0
    """Size of the weights file."""

    @cached_property
    def files(self) -> tuple[StoredFile, ...]:
        """Its one or two files."""
        graph = StoredFile(self.graph, self.graph_bytes)
        return (graph,) if self.weights is None else (graph, StoredFile(self.weights, self.weights_bytes))


class Chain(Part):
    """A network in pieces, in order."""

    ir_version: Annotated[int, Field(ge=4, le=100)]
    """Version of the ONNX format."""
    opsets: Annotated[tuple[OperatorSet, ...], Field(min_length=1, max_length=3)]
    pieces: Annotated[tuple[Piece, ...], Field(min_length=1, max_length=MAX_PIECES)]
    bundles: Annotated[tuple[Bundle, ...], Field(min_length=2, max_length=MAX_PIECES + 1)]
    """What crosses: the input, what lies between neighbouring pieces, the output."""

    def stage(self, first: int, end: int) -> "ChainStage":
        """Return the pieces from `first` up to, but not including, `end` as one stage.

        Raises:
            ValueError: There is no such run of pieces.
        """
        if not 0 <= first < end <= len(self.pieces):
            raise ValueError(f"no pieces {first} to {end} in a chain of {len(self.pieces)}")
        return ChainStage(
            ir_version=self.ir_version,
            opsets=self.opsets,
            pieces=self.pieces[first:end],
            inputs=self.bundles[first],
            outputs=self.bundles[end],
        )

    def stages(self, cuts: tuple[int, ...]) -> tuple["ChainStage", ...]:
        """Return the stages between the given numbers of pieces, ascending. Raises ValueError."""
        return tuple(self.stage(first, end) for first, end in pairwise((0, *cuts, len(self.pieces))))

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self.bundles) != len(self.pieces) + 1:
            raise ValueError(f"{len(self.bundles)} bundles for {len(self.pieces)} pieces; expected one more")
        if len({opset.domain for opset in self.opsets}) < len(self.opsets):
            raise ValueError("a set of operators is given twice")
        for bundle in self.bundles:
            if len({tensor.name for tensor in bundle}) < len(bundle):
                raise ValueError("a bundle names a tensor twice")
            if (
                len(bundle) > 1
                and max(len(tensor.name.encode()) for tensor in bundle) > MAX_BUNDLE_NAME_BYTES
            ):
                raise ValueError(f"a bundle has a name of more than {MAX_BUNDLE_NAME_BYTES} bytes")
        for piece in self.pieces:
            if (piece.weights is None) != (piece.weights_bytes == 0):
                raise ValueError(
                    f"piece {piece.graph[:12]} has weights without a size, or a size without weights"
                )
        return self


class ChainStage(Part):
    """A run of neighbouring pieces, with what a node needs to join them into one session."""

    ir_version: int
    opsets: tuple[OperatorSet, ...]
    pieces: tuple[Piece, ...]
    inputs: Bundle
    outputs: Bundle

    @cached_property
    def sha256(self) -> str:
        """Its id: of everything that a node joins, so versions and bundles as well as pieces."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files of its pieces, each once."""
        # By their hashes, as a table of all runs asks for it thousands of times.
        return tuple({file.sha256: file for piece in self.pieces for file in piece.files}.values())


class PieceRun(Part):
    """A run of neighbouring pieces, as messages about a task name it."""

    chain: Name
    first: Annotated[int, Field(ge=0, lt=MAX_PIECES)]
    """Number of its first piece."""
    end: Annotated[int, Field(ge=1, le=MAX_PIECES)]
    """Number of the piece after its last one."""


class PieceCost(Part):
    """What one piece costs inside a joined stage, on the device of `Application.reference_score`."""

    milliseconds_per_image: Milliseconds
    """Its share of the time of the whole chain, in one thread."""
    weight_bytes: Bytes
    """Memory of its weights in a session. Files may hold them narrower."""
    activation_bytes_per_image: Bytes
    """Greatest sum of the tensors that live at the same time."""
    flops_per_image: NonNegative
    largest_weight_bytes: Bytes = 0
    """Memory of the largest of its weights; 0 = not known."""
    output_ratio: Ratio = 1.0
    """Share of its outputs that is left when nodes compress them; 1 where that was not measured."""


class RunTotals(NamedTuple):
    """What a run of pieces costs together."""

    file_bytes: int
    """Size of its files, each counted once."""
    weight_bytes: int
    activation_bytes_per_image: int
    """The greatest of its pieces."""
    flops_per_image: float
    milliseconds_per_image: float
    largest_weight_bytes: int
    """0 = not known of all pieces."""
    output_ratio: float
    """Share of the outputs of its last piece that compression leaves."""


class NamedChain(Part):
    """A network of an application, in pieces, with what they cost."""

    name: Name
    chain: Chain
    costs: Annotated[tuple[PieceCost, ...], Field(max_length=MAX_PIECES)]
    """One for each piece."""

    def totals_from(self, first: int) -> Iterator[RunTotals]:
        """Yield what the runs that begin at a piece cost, the shortest first."""
        seen: set[str] = set()
        files = weights = activation = largest = 0
        is_known = True
        flops = milliseconds = 0.0
        for piece, cost in zip(self.chain.pieces[first:], self.costs[first:], strict=True):
            for file in piece.files:
                files += 0 if file.sha256 in seen else file.file_bytes
                seen.add(file.sha256)
            weights += cost.weight_bytes
            activation = max(activation, cost.activation_bytes_per_image)
            flops += cost.flops_per_image
            milliseconds += cost.milliseconds_per_image
            largest = max(largest, cost.largest_weight_bytes)
            is_known = is_known and (cost.largest_weight_bytes > 0 or not cost.weight_bytes)
            known_largest = largest if is_known else 0
            yield RunTotals(files, weights, activation, flops, milliseconds, known_largest, cost.output_ratio)

    @model_validator(mode="after")
    def _has_costs(self) -> Self:
        if len(self.costs) != len(self.chain.pieces):
            raise ValueError(f"{len(self.costs)} costs for {len(self.chain.pieces)} pieces")
        return self
