"""Applications of one fragment that no maker of networks would send: endless, huge, or never finite."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.application import Application, Stage, Variant
from splitplace.messages.pieces import Chain, NamedChain, NamedTensor, OperatorSet, Piece
from splitplace.messages.tensors import TensorSpec
from splitplace.storage.model_store import ModelStore, sha256_of
from tests.support.chains import COST, run_of

IMAGE = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, 4, 4])
LOGITS = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
SIDE = 2048
PRODUCTS = 2000


def constant(name: str, values: Any, dtype: Any = np.int64) -> onnx.NodeProto:
    """A node that gives these values."""
    tensor = numpy_helper.from_array(np.asarray(values, dtype))
    return helper.make_node("Constant", [], [name], value=tensor)


def flat() -> list[onnx.NodeProto]:
    """Nodes that make `row`, float32 `[batch, 4]`, from the image."""
    return [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        constant("axes", [1, 3]),
        helper.make_node("ReduceSum", ["pixels", "axes"], ["row"], keepdims=0),
    ]


def endless() -> list[onnx.NodeProto]:
    """Nodes without a loop that compute for many minutes, and little memory: one product after another."""
    nodes = [
        *flat(),
        constant("all", [0, 1]),
        helper.make_node("ReduceMean", ["row"], ["number"], keepdims=0),
        constant("sides", [SIDE, SIDE]),
        helper.make_node("ConstantOfShape", ["sides"], ["ones"], value=_one()),
        helper.make_node("Mul", ["ones", "number"], ["m0"]),
    ]
    for index in range(PRODUCTS):
        nodes.append(helper.make_node("MatMul", [f"m{index}", "m0"], [f"p{index}"]))
        nodes.append(helper.make_node("Clip", [f"p{index}", "low", "high"], [f"m{index + 1}"]))
    return [
        constant("low", 0.0, np.float32),
        constant("high", 1.0, np.float32),
        *nodes,
        helper.make_node("ReduceMax", [f"m{PRODUCTS}"], ["most"], keepdims=0),
        helper.make_node("Add", ["row", "most"], ["logits"]),
    ]


def doubling() -> onnx.GraphProto:
    """Return the body of a `Loop` that doubles a tensor in each turn."""
    return helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["v", "v"], ["twice"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("twice", TensorProto.FLOAT, None),
        ],
    )


def growing(size: int) -> list[onnx.NodeProto]:
    """Nodes that make a tensor of so many bytes for each image; the file does not tell its size."""
    return [
        *flat(),
        constant("items", [size // 4]),
        constant("first", [0]),
        helper.make_node("Shape", ["row"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["images"]),
        helper.make_node("Mul", ["items", "images"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceMax", ["big"], ["most"], keepdims=0),
        helper.make_node("Add", ["row", "most"], ["logits"]),
    ]


def _one() -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(1, np.float32))


def model_of(nodes: Sequence[onnx.NodeProto], **more: Any) -> bytes:
    """The file of a network from `image` to `logits`."""
    graph = helper.make_graph(nodes, "odd", [IMAGE], [LOGITS])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, **more)
    content: Any = made.SerializeToString(deterministic=True)
    return bytes(content)


def build_odd_application(root: Path, nodes: Sequence[onnx.NodeProto]) -> Application:
    """Write an application of one piece with these nodes; its figures are those of a tiny network."""
    image = TensorSpec(dtype="uint8", shape=(1, 4, 4))
    body = onnx.ModelProto()
    body.graph.node.extend(nodes)
    content: bytes = body.SerializeToString(deterministic=True)
    chain = NamedChain(
        name="whole",
        chain=Chain(
            ir_version=9,
            opsets=(OperatorSet(domain="", version=17),),
            pieces=(Piece(graph=sha256_of(content), graph_bytes=len(content)),),
            bundles=(
                (NamedTensor(name="image", spec=image),),
                (NamedTensor(name="logits", spec=TensorSpec(dtype="float32", shape=(4,))),),
            ),
        ),
        costs=(COST,),
    )
    fragment = run_of(chain)
    stage = Stage(name="whole", fragment=fragment.sha256, source="input", classes=(0, 1, 2, 3))
    application = Application(
        name="odd",
        title="A network that no maker would send",
        input=image,
        labels=("a", "b", "c", "d"),
        default_deadline_ms=1000.0,
        reference_score=50.0,
        variants=(
            Variant(
                name="whole", kind="whole", stages=(stage,), micro_batch=4, accuracy=1.0, accuracy_images=0
            ),
        ),
        fragments=(fragment,),
        chains=(chain,),
    )
    ModelStore(root).save(application, [content])
    return application
