"""Fragments without a network: each is a chain of one piece with one file."""

from splitplace.messages.application import Fragment
from splitplace.messages.pieces import (
    Chain,
    NamedChain,
    NamedTensor,
    OperatorSet,
    Piece,
    PieceCost,
    StoredFile,
)
from splitplace.messages.tensors import TensorSpec

OPSET = 17
IR_VERSION = 9


def chain_of_file(name: str, file: StoredFile, source: TensorSpec, target: TensorSpec) -> NamedChain:
    """Return a chain whose only piece has this file, and costs nothing."""
    return NamedChain(
        name=name,
        chain=Chain(
            ir_version=IR_VERSION,
            opsets=(OperatorSet(domain="", version=OPSET),),
            pieces=(Piece(graph=file.sha256, graph_bytes=file.file_bytes),),
            bundles=((NamedTensor(name="source", spec=source),), (NamedTensor(name="target", spec=target),)),
        ),
        costs=(
            PieceCost(
                milliseconds_per_image=0.0, weight_bytes=0, activation_bytes_per_image=0, flops_per_image=0.0
            ),
        ),
    )


def fragment_of(chain: NamedChain, example: Fragment) -> Fragment:
    """Return a whole chain of `chain_of_file` as a fragment with the figures of another one."""
    stage = chain.chain.stage(0, len(chain.chain.pieces))
    return example.model_copy(
        update={
            "sha256": stage.sha256,
            "file_bytes": sum(file.file_bytes for file in stage.files),
            "input": stage.inputs[0].spec,
            "output": stage.outputs[0].spec,
            "chain": chain.name,
            "first": 0,
            "end": len(chain.chain.pieces),
        }
    )
