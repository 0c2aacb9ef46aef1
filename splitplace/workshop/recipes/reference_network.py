"""Make the network that every node runs to measure its speed.

`python -m splitplace.workshop.recipes.reference_network`

Two 3x3 convolutions that share one weight, of a size that is common in small residual networks. The weight is
drawn from a seed, so every run makes the same file.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from splitplace.edge_node.benchmark import REFERENCE_FILE
from splitplace.workshop.onnx.file import file_content, finish

CHANNELS = 32
SIDE = 28
DEPTH = 2
OPSET = 17


def reference_network() -> onnx.ModelProto:
    """Build the network. It maps `float32[N, 32, 28, 28]` to the same shape."""
    fan_in = CHANNELS * 9
    weight = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS, 3, 3)) * np.sqrt(2 / fan_in)
    nodes = []
    tensor = "images"
    for layer in range(DEPTH):
        convolved = f"convolved_{layer}"
        output = "features" if layer == DEPTH - 1 else f"activated_{layer}"
        nodes.append(helper.make_node("Conv", [tensor, "weight"], [convolved], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [convolved], [output]))
        tensor = output
    shape: list[str | int | None] = ["batch", CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    return finish(model)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m splitplace.workshop.recipes.reference_network", description=__doc__
    )
    parser.add_argument("--output", type=Path, default=REFERENCE_FILE)
    arguments = parser.parse_args(argv)
    arguments.output.write_bytes(file_content(reference_network()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
