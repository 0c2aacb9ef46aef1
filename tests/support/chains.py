"""Networks of tests in pieces: chains with nominal costs, and fragments that are runs of them."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx
from onnx import TensorProto

from splitplace.messages.application import Fragment
from splitplace.messages.pieces import Chain, NamedChain, PieceCost
from splitplace.workshop.pieces.constants import with_constants_as_weights
from splitplace.workshop.pieces.cut import CutChain, PieceFiles, all_files, cut_into_pieces

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
    assert not part.weights, "it has a weights file already"
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
        weights=content,
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
    return list(all_files(cuts).values())


def run_of(chain: NamedChain, first: int = 0, end: int | None = None, **figures: Any) -> Fragment:
    """Return a run of pieces as a fragment; by default of the whole chain, with nominal figures."""
    end = len(chain.chain.pieces) if end is None else end
    stage = chain.chain.stage(first, end)
    (source,), (target,) = stage.inputs, stage.outputs
    fields: dict[str, Any] = {
        "sha256": stage.sha256,
        "file_bytes": sum(file.file_bytes for file in stage.files),
        "weight_bytes": 100,
        "peak_memory_bytes": 100_000,
        "flops_per_image": 100.0,
        "milliseconds_per_image": 0.01,
        "milliseconds_per_call": 0.05,
        "input": source.spec,
        "output": target.spec,
        "chain": chain.name,
        "first": first,
        "end": end,
    }
    return Fragment(**(fields | figures))
