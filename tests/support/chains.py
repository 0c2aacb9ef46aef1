"""Networks of tests in pieces: chains with nominal costs, and fragments that are runs of them.

Chains of `cut_at` have files; those of `nominal_chain` only say that they have some.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import onnx
from onnx import TensorProto

from splitplace.messages.application import Fragment
from splitplace.messages.pieces import (
    Chain,
    NamedChain,
    NamedTensor,
    OperatorSet,
    Piece,
    PieceCost,
    as_described,
)
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.pieces.constants import with_constants_as_weights
from splitplace.workshop.pieces.cut import CutChain, PieceFiles, cut_into_pieces

COST = PieceCost(
    milliseconds_per_image=0.01, weight_bytes=100, activation_bytes_per_image=100, flops_per_image=100.0
)


def cut_at(model: onnx.ModelProto, *tensors: str, ballast: Mapping[int, bytes] | None = None) -> CutChain:
    """Cut a network at some tensors.

    Args:
        model: The network. It is not changed.
        tensors: Where to cut.
        ballast: Content of a weight that no node reads, by number of piece: pieces of tiny networks would
            have no weights file.
    """
    cut = cut_into_pieces(with_constants_as_weights(model), tensors)
    files = list(cut.files)
    for index, content in (ballast or {}).items():
        files[index] = _with_ballast(files[index], content)
    chain = cut.chain.model_copy(update={"pieces": tuple(part.piece for part in files)})
    return CutChain(Chain.model_validate(chain.model_dump()), tuple(files))


def _with_ballast(part: PieceFiles, content: bytes) -> PieceFiles:
    assert not part.large, "it has a weights file already"
    sha256 = hashlib.sha256(content).hexdigest()
    body = onnx.ModelProto.FromString(part.graph)
    tensor = body.graph.initializer.add()
    tensor.name = f"ballast.{sha256}"
    tensor.dims.append(len(content))
    tensor.data_type = TensorProto.UINT8
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": sha256, "offset": "0", "length": str(len(content))}.items():
        tensor.external_data.add(key=key, value=value)
    graph: bytes = body.SerializeToString(deterministic=True)
    return replace(
        part,
        graph=graph,
        large=(onnx.TensorProto(data_type=TensorProto.UINT8, dims=[len(content)], raw_data=content),),
        piece=part.piece.model_copy(
            update={
                "graph": hashlib.sha256(graph).hexdigest(),
                "graph_bytes": len(graph),
                "weights": sha256,
                "weights_bytes": len(content),
            }
        ),
    )


def named(name: str, cut: CutChain) -> NamedChain:
    """Return a chain with nominal costs."""
    return NamedChain(name=name, chain=cut.chain, costs=(COST,) * len(cut.chain.pieces))


def contents(*cuts: CutChain) -> list[bytes]:
    """Return the content of every file, each once."""
    parts = [part for cut in cuts for part in cut.files]
    graphs = {part.piece.graph: part.graph for part in parts}
    weights = {part.piece.weights: b"".join(part.weights()) for part in parts if part.large}
    return [*graphs.values(), *weights.values()]


def run_of(chain: NamedChain, first: int = 0, end: int | None = None, **figures: Any) -> Fragment:
    """Return a run of pieces as a fragment; by default of the whole chain, with nominal figures."""
    end = len(chain.chain.pieces) if end is None else end
    stage = chain.chain.stage(first, end)
    (source, sources), (target, targets) = as_described(stage.inputs), as_described(stage.outputs)
    fields: dict[str, Any] = {
        "sha256": stage.sha256,
        "file_bytes": sum(file.file_bytes for file in stage.files),
        "weight_bytes": 100,
        "peak_memory_bytes": 100_000,
        "flops_per_image": 100.0,
        "milliseconds_per_image": 0.01,
        "milliseconds_per_call": 0.05,
        "input": source,
        "output": target,
        "inputs": sources,
        "outputs": targets,
        "chain": chain.name,
        "first": first,
        "end": end,
    }
    return Fragment(**(fields | figures))


def nominal_chain(
    name: str, source: TensorSpec, target: TensorSpec, file_bytes: int = 0, sha256: str | None = None
) -> NamedChain:
    """Return a chain of one piece, whose only file is of this size.

    Unless its hash is given, the file exists nowhere, and chains of different names have different files.
    """
    piece = Piece(graph=sha256 or hashlib.sha256(name.encode()).hexdigest(), graph_bytes=file_bytes)
    return NamedChain(
        name=name,
        chain=Chain(
            ir_version=9,
            opsets=(OperatorSet(domain="", version=17),),
            pieces=(piece,),
            bundles=((NamedTensor(name="source", spec=source),), (NamedTensor(name="target", spec=target),)),
        ),
        costs=(COST,),
    )


def nominal_run(
    name: str, source: TensorSpec, target: TensorSpec, file_bytes: int = 0, **figures: Any
) -> Fragment:
    """Return the `nominal_chain` of that name as a fragment."""
    return run_of(nominal_chain(name, source, target, file_bytes), **figures)


def nominal_chains(fragments: Iterable[Fragment]) -> tuple[NamedChain, ...]:
    """Return the chains of fragments from `nominal_run`, each once."""
    chains = {
        fragment.chain: nominal_chain(fragment.chain, fragment.input, fragment.output, fragment.file_bytes)
        for fragment in fragments
        if fragment.chain is not None
    }
    return tuple(chains.values())
