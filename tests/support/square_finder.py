"""A small detector that finds bright squares by convolution, as an ONNX file in the form of YOLO."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 96
STRIDE = 8
SQUARE = 16
"""Side of the squares that it is sure of, in pixels of its input."""


def square_finder() -> onnx.ModelProto:
    """Return a network `[N, 3, 96, 96] -> [N, 5, 144]`: centre, size and confidence of a square in each cell.

    A convolution compares what is bright inside a square of 16 pixels with what is around it. Input values
    are 0 to 1.
    """
    cells = SIDE // STRIDE
    kernel = np.full((1, 3, 24, 24), -1.0, np.float32)
    kernel[:, :, 4:20, 4:20] = 1.0
    kernel[kernel > 0] /= 3 * SQUARE**2
    kernel[kernel < 0] /= 3 * (24**2 - SQUARE**2)
    place = np.arange(cells, dtype=np.float32) * STRIDE + STRIDE / 2
    columns, rows = np.meshgrid(place, place)
    sizes = np.full_like(columns, SQUARE)
    boxes = np.stack([columns, rows, sizes, sizes]).reshape(1, 4, cells**2)
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["found"], strides=[STRIDE] * 2, pads=[8] * 4),
        helper.make_node("Mul", ["found", "steep"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "least"], ["shifted"]),
        helper.make_node("Sigmoid", ["shifted"], ["share"]),
        helper.make_node("Reshape", ["share", "row"], ["confidence"]),
        helper.make_node("Mul", ["confidence", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "boxes"], ["placed"]),
        helper.make_node("Concat", ["placed", "confidence"], ["output0"], axis=1),
    ]
    weights = [
        numpy_helper.from_array(kernel, "kernel"),
        numpy_helper.from_array(np.array(40, np.float32), "steep"),
        numpy_helper.from_array(np.array(20, np.float32), "least"),
        numpy_helper.from_array(np.array([0, 1, cells**2]), "row"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(boxes, "boxes"),
    ]
    graph = helper.make_graph(
        nodes,
        "squares",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["N", 5, cells**2])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model
