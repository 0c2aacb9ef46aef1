"""Small networks in which several tensors cross at almost every place: a U-Net, and a detector's neck."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 32
CLASSES = 4


@dataclass
class Build:
    """Nodes and weights of a network that is being written down."""

    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def conv(self, source: str, inner: int, outer: int, *, stride: int = 1, kernel: int = 3) -> str:
        """A convolution, a normalisation and a ReLU; returns the tensor that it makes."""
        name = f"c{len(self.nodes)}"
        random = np.random.default_rng(self.seed + len(self.nodes))
        deviation = (2 / (inner * kernel * kernel)) ** 0.5
        self.add(f"{name}.w", deviation * random.standard_normal((outer, inner, kernel, kernel)))
        self.add(f"{name}.b", 0.1 * random.standard_normal(outer))
        pads = [kernel // 2] * 4
        names = [source, f"{name}.w", f"{name}.b"]
        self.node("Conv", names, name, pads=pads, strides=[stride] * 2)
        return self.node("Relu", [name], f"{name}.relu")

    def up(self, source: str) -> str:
        """The same picture at twice the size."""
        name = f"up{len(self.nodes)}"
        self.weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), f"{name}.scales"))
        return self.node("Resize", [source, "", f"{name}.scales"], name, mode="nearest")

    def concat(self, *sources: str, axis: int = 1) -> str:
        """Tensors beside each other."""
        return self.node("Concat", list(sources), f"cat{len(self.nodes)}", axis=axis)

    def rows(self, source: str, columns: int) -> str:
        """A picture of predictions as rows."""
        name = f"rows{len(self.nodes)}"
        self.weights.append(numpy_helper.from_array(np.array([0, columns, -1]), f"{name}.shape"))
        flat = self.node("Reshape", [source, f"{name}.shape"], f"{name}.flat")
        return self.node("Transpose", [flat], name, perm=[0, 2, 1])

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Any node with one output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def add(self, name: str, values: NDArray[np.float64]) -> None:
        """A weight."""
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))

    def model(self, outputs: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
        """The network from `images` to these outputs, by name and shape without the batch."""
        graph = helper.make_graph(
            self.nodes,
            "branching",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
                for name, shape in outputs.items()
            ],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def unet(width: int = 8, depth: int = 3) -> onnx.ModelProto:
    """A U-Net: the output of every level on the way down is read again on the way up."""
    build, skipped = Build(), []
    here, channels = build.conv("images", 3, width), width
    for _ in range(depth):
        here = build.conv(here, channels, channels)
        skipped.append((here, channels))
        here = build.conv(here, channels, 2 * channels, stride=2)
        channels *= 2
    here = build.conv(here, channels, channels)
    for skip, inner in reversed(skipped):
        here = build.concat(build.up(here), skip)
        here = build.conv(here, channels + inner, inner)
        channels = inner
    build.add("head.w", np.random.default_rng(9).standard_normal((CLASSES, channels, 1, 1)))
    build.node("Conv", [here, "head.w"], "masks")
    return build.model({"masks": (CLASSES, SIDE, SIDE)})


def unet_classifier(width: int = 8) -> onnx.ModelProto:
    """A U-Net whose masks are averaged to `logits`."""
    model = unet(width)
    graph = model.graph
    graph.node.append(helper.make_node("GlobalAveragePool", ["masks"], ["pooled"]))
    graph.node.append(helper.make_node("Flatten", ["pooled"], ["logits"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]))
    onnx.checker.check_model(model, full_check=True)
    return model


def detector(width: int = 8, *, several_outputs: bool = False) -> onnx.ModelProto:
    """A backbone, a neck that goes down and up again over three scales, and a head for each scale.

    Args:
        width: Channels of the first layer.
        several_outputs: Whether each scale is an output; else all are rows of one.
    """
    build = Build(seed=50)
    p2 = build.conv("images", 3, width, stride=2)
    p3 = build.conv(p2, width, 2 * width, stride=2)
    p4 = build.conv(p3, 2 * width, 4 * width, stride=2)
    p5 = build.conv(p4, 4 * width, 4 * width, stride=2)
    n4 = build.conv(build.concat(build.up(p5), p4), 8 * width, 2 * width)
    n3 = build.conv(build.concat(build.up(n4), p3), 4 * width, 2 * width)
    m4 = build.conv(build.concat(build.conv(n3, 2 * width, 2 * width, stride=2), n4), 4 * width, 4 * width)
    m5 = build.conv(build.concat(build.conv(m4, 4 * width, 4 * width, stride=2), p5), 8 * width, 4 * width)
    heads = []
    for scale, inner in ((n3, 2 * width), (m4, 4 * width), (m5, 4 * width)):
        heads.append(build.rows(build.conv(scale, inner, 5 + CLASSES, kernel=1), 5 + CLASSES))
    counts = [(SIDE // 4) ** 2, (SIDE // 8) ** 2, (SIDE // 16) ** 2]
    if several_outputs:
        return build.model({head: (count, 5 + CLASSES) for head, count in zip(heads, counts, strict=True)})
    build.node("Concat", heads, "boxes", axis=1)
    return build.model({"boxes": (sum(counts), 5 + CLASSES)})
