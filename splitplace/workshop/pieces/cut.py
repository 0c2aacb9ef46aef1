"""Cut a network into a chain of pieces.

A piece holds the nodes and weights between two places where a bundle of tensors crosses. What depends on no
picture (weights, what is computed from weights, sizes) belongs to the first piece that reads it. Later pieces
have copies of their own under other names, so that any run of pieces is complete and makes no tensor twice.
The number of images (`BATCH_SIZE`) is computed by the head of a stage.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast, get_args

import onnx

from splitplace.edge_node.stage.joining import BATCH_SIZE
from splitplace.errors import SplitPlaceError
from splitplace.messages.limits import (
    MAX_BUNDLE_NAME_BYTES,
    MAX_FILE_BYTES,
    MAX_GRAPH_FILE_BYTES,
    SMALL_WEIGHT_BYTES,
)
from splitplace.messages.pieces import (
    WEIGHT_ALIGNMENT,
    Chain,
    NamedTensor,
    OperatorDomain,
    OperatorSet,
    Piece,
)
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.onnx.aside import outside, raw_of
from splitplace.workshop.onnx.branches import reads, rename
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.pieces.places import Cut, crossing, sent_as

_COPY = "splitplace.piece"
_SHORT = "splitplace.crossing."
_MAX_NAME_BYTES = 512
"""Longest name in a manifest."""


class PieceCutError(SplitPlaceError):
    """A network that cannot be cut into pieces."""


@dataclass(frozen=True)
class PieceFiles:
    """A piece and the content of its files."""

    piece: Piece
    graph: bytes
    large: tuple[onnx.TensorProto, ...]
    """The weights of its weights file, in order. Large networks keep theirs outside: not read yet."""

    def weights(self) -> Iterator[bytes | memoryview]:
        """Yield the parts of its weights file, in order: one at a time in memory. Raises OSError."""
        return _parts(self.large)


@dataclass(frozen=True)
class CutChain:
    """A chain with the content of all its files."""

    chain: Chain
    files: tuple[PieceFiles, ...]


def cut_into_pieces(model: onnx.ModelProto, cuts: Sequence[Cut]) -> CutChain:
    """Cut a network at some places.

    Tensors that cross together get short names where theirs are long: each frame carries them.

    Args:
        model: The whole network, batch first, as `constants.with_constants_as_weights` returns it. It is not
            changed.
        cuts: What crosses at each place, in order, as `Place.tensors`.

    Raises:
        PieceCutError: A piece is larger than a node accepts, or the network cannot be cut there.
    """
    bundles = [crossing(cut) for cut in cuts]
    cutter = _Cutter(model, bundles)
    files = tuple(_files(index, body) for index, body in enumerate(cutter.bodies()))
    ends = (cutter.graph.inputs, *bundles, cutter.graph.outputs)
    chain = Chain(
        ir_version=model.ir_version,
        opsets=tuple(
            OperatorSet(domain=_domain(opset.domain), version=opset.version) for opset in model.opset_import
        ),
        pieces=tuple(part.piece for part in files),
        bundles=tuple(tuple(cutter.tensor(name) for name in bundle) for bundle in ends),
    )
    return CutChain(chain, files)


def cut_numbers(chain: Chain, cuts: Iterable[Cut]) -> tuple[int, ...]:
    """Return the number of the piece that begins at each cut. Raises PieceCutError if none does."""
    names = [frozenset(tensor.name for tensor in bundle) for bundle in chain.bundles]
    wanted = [crossing(cut) for cut in cuts]
    found = []
    for bundle in wanted:
        short = _short_names(bundle)
        inner = frozenset(short.get(name, name) for name in bundle)
        if inner not in names[1:-1]:
            raise PieceCutError(f"the chain is not cut at {'+'.join(bundle)!r}")
        found.append(names.index(inner, 1))
    return tuple(found)


class _Cutter:
    """Divides the nodes of a model among pieces."""

    def __init__(self, model: onnx.ModelProto, bundles: Sequence[tuple[str, ...]]) -> None:
        self.graph = Graph(model)
        computed = {id(node) for node in self.graph.nodes}
        self._bundles = bundles
        together = [self.graph.inputs, *bundles, self.graph.outputs]
        self._short = {name: short for bundle in together for name, short in _short_names(bundle).items()}
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._aside = [node for node in model.graph.node if id(node) not in computed]
        """Nodes that depend on no picture, in topological order."""
        self._made_aside = {name: node for node in self._aside for name in node.output if name}
        self._taken: set[str] = set()
        """Weights and outputs of `_aside` that an earlier piece has."""

    def tensor(self, name: str) -> NamedTensor:
        """Describe a tensor that crosses. Raise PieceCutError if its type cannot be sent."""
        dtype = sent_as(self.graph, name)
        if dtype is None:
            raise PieceCutError(f"the tensor {name!r} is of a type that nodes cannot send")
        spec = TensorSpec(dtype=dtype, shape=self.graph.shape(name))
        return NamedTensor(name=self._short.get(name, name), spec=spec)

    def bodies(self) -> Iterator[onnx.ModelProto]:
        """Yield the models of the pieces, with nothing but nodes and weights: one at a time in memory."""
        after = {live: number for number, live in enumerate(self.graph.live(), start=1)}
        ends = [after.get(frozenset(bundle), 0) for bundle in self._bundles]
        if 0 in ends or ends != sorted(set(ends)) or len(self.graph.nodes) in ends:
            shown = ", ".join("+".join(bundle) for bundle in self._bundles)
            raise PieceCutError(f"{shown[:500]} are not what crosses at places of the network, in order")
        bounds = pairwise((0, *ends, len(self.graph.nodes)))
        for index, (first, end) in enumerate(bounds):
            yield self._body(index, self.graph.nodes[first:end])

    def _body(self, index: int, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
        aside, weights = self._needed(nodes)
        names = [*weights, *(name for node in aside for name in node.output if name)]
        copies = {name: f"{_COPY}{index}.{name}" for name in names if name in self._taken}
        renamed = {**self._short, **copies}
        self._taken.update(names)
        body = onnx.ModelProto()
        for node in (*aside, *nodes):
            copy = body.graph.node.add()
            copy.CopyFrom(node)
            rename(copy, renamed)
            for note in ("name", "doc_string", "metadata_props"):
                copy.ClearField(note)
        for name in weights:
            weight = body.graph.initializer.add()
            weight.CopyFrom(self._weights[name])
            weight.name = renamed.get(name, name)
            for note in ("doc_string", "metadata_props"):
                weight.ClearField(note)
        return body

    def _needed(self, nodes: Sequence[onnx.NodeProto]) -> tuple[list[onnx.NodeProto], list[str]]:
        """Return the nodes beside the data flow, and the weights, that the given nodes need, in order."""
        wanted = [name for node in nodes for name in reads(node)]
        needed: set[str] = set()
        while wanted:
            name = wanted.pop()
            if name in needed or name == BATCH_SIZE:
                continue
            if name in self._made_aside:
                wanted.extend(reads(self._made_aside[name]))
            elif name not in self._weights:
                continue
            needed.add(name)
        return (
            [node for node in self._aside if needed.intersection(node.output)],
            [name for name in self._weights if name in needed],
        )


def _files(index: int, body: onnx.ModelProto) -> PieceFiles:
    """Divide a piece into its two files."""
    lengths = {tensor.name: len(raw_of(tensor)) for tensor in body.graph.initializer}
    large = tuple(each for each in body.graph.initializer if lengths[each.name] >= SMALL_WEIGHT_BYTES)
    found = hashlib.sha256()
    for part in _parts(large):
        found.update(part)
    sha256, size = found.hexdigest(), 0
    stored = onnx.ModelProto()
    stored.graph.node.extend(body.graph.node)
    for tensor in body.graph.initializer:
        length = lengths[tensor.name]
        if length < SMALL_WEIGHT_BYTES:
            stored.graph.initializer.append(tensor)
            continue
        offset = size + -size % WEIGHT_ALIGNMENT
        stored.graph.initializer.append(outside(tensor, sha256, offset, length))
        size = offset + length
    graph = stored.SerializeToString(deterministic=True)
    for taken, most, what in (
        (len(graph), MAX_GRAPH_FILE_BYTES, "graph"),
        (size, MAX_FILE_BYTES, "weights"),
    ):
        if taken > most:
            raise PieceCutError(f"the {what} of piece {index} take {taken} bytes; a node accepts {most}")
    piece = Piece(
        graph=hashlib.sha256(graph).hexdigest(),
        graph_bytes=len(graph),
        weights=sha256 if size else None,
        weights_bytes=size,
    )
    return PieceFiles(piece, graph, large)


def _parts(large: Iterable[onnx.TensorProto]) -> Iterator[bytes | memoryview]:
    """Yield weights as they lie in a file, each after what fills up to its place."""
    size = 0
    for tensor in large:
        filling, raw = bytes(-size % WEIGHT_ALIGNMENT), raw_of(tensor)
        yield filling
        yield raw
        size += len(filling) + len(raw)


def _short_names(bundle: Sequence[str]) -> Mapping[str, str]:
    """Return another name for each that is too long: each frame carries those of several tensors."""
    most = MAX_BUNDLE_NAME_BYTES if len(bundle) > 1 else _MAX_NAME_BYTES
    return {
        name: f"{_SHORT}{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        for name in bundle
        if len(name.encode()) > most
    }


def _domain(domain: str) -> OperatorDomain:
    known = "" if domain == "ai.onnx" else domain
    if known not in get_args(OperatorDomain):
        raise PieceCutError(f"operators of {domain!r} are not part of ONNX Runtime on nodes")
    return cast("OperatorDomain", known)
