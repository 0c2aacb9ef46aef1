"""Small networks in pieces, made without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.pieces import ChainStage
from splitplace.workshop.pieces.chain import write_files
from splitplace.workshop.pieces.cut import CutChain, cut_into_pieces

CHANNELS = 16
SIDE = 12


def small_convolutions(layers: int = 4) -> onnx.ModelProto:
    """Layers of convolution and ReLU, `r0` and so on, then logits. Every large weight has 9 KiB."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "images"
    for index in range(layers):
        shape = (CHANNELS, 3 if index == 0 else CHANNELS, 3, 3)
        weights.append(weight(f"w{index}", 0.2 * random.standard_normal(shape)))
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last = f"r{index}"
    weights.append(weight("classifier", random.standard_normal((CHANNELS, 4))))
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    nodes.append(helper.make_node("Gemm", ["features", "classifier"], ["logits"]))
    return model_of(nodes, weights, [3, SIDE, SIDE], [4])


def model_of(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    shape: list[int],
    output: list[int],
) -> onnx.ModelProto:
    """A network from `images` to `logits`, both `float32` and batch first."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *output])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def weight(name: str, values: NDArray[Any]) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)


def noise(images: int = 3, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((images, 3, SIDE, SIDE)).astype(np.float32)


def products_of_matrices(side: int = 768, layers: int = 16) -> onnx.ModelProto:
    """Return a network of products with matrices of 2.25 MiB, 36 MiB in all."""
    random, source = np.random.default_rng(0), "flat"
    shape = noise(1).shape[1:]
    nodes = [helper.make_node("Flatten", ["images"], ["pixels"])]
    nodes.append(helper.make_node("MatMul", ["pixels", "first"], ["flat"]))
    weights = [weight("first", 0.02 * random.standard_normal((int(np.prod(shape)), side)))]
    for index in range(layers):
        weights.append(weight(f"w{index}", 0.05 * random.standard_normal((side, side))))
        nodes.append(helper.make_node("MatMul", [source, f"w{index}"], [f"m{index}"]))
        nodes.append(helper.make_node("Relu", [f"m{index}"], [f"r{index}"]))
        source = f"r{index}"
    nodes.append(helper.make_node("Identity", [source], ["logits"]))
    return model_of(nodes, weights, list(shape), [side])


def answers(model: onnx.ModelProto, images: NDArray[Any]) -> NDArray[Any]:
    """What ONNX Runtime alone answers with the network in one file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    session = ort.InferenceSession(bare.SerializeToString(), options, providers=["CPUExecutionProvider"])
    output: NDArray[Any] = session.run(None, {session.get_inputs()[0].name: images})[0]
    return output


@dataclass(frozen=True)
class Written:
    """A network in pieces, written to a folder."""

    model: onnx.ModelProto
    cut: CutChain
    folder: Path

    @property
    def whole(self) -> ChainStage:
        return self.cut.chain.stage(0, len(self.cut.chain.pieces))


def written_pieces(folder: Path, layers: int = 4) -> Written:
    """`small_convolutions`, with a piece for each layer and the classifier in the last one."""
    model = small_convolutions(layers)
    cut = cut_into_pieces(model, [f"r{index}" for index in range(layers - 1)])
    write_files(folder, cut)
    return Written(model, cut, folder)
