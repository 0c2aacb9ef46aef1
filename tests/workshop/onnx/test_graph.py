"""What a graph says of its size and work."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.onnx.inference import GraphError
from splitplace.workshop.onnx.narrow import narrowed
from tests.support.small_networks import EXAMPLE, onnx_model, small_network


def test_flops_and_weights_are_those_that_torch_counts() -> None:
    network = small_network()
    graph = Graph(export_network(network, EXAMPLE))
    counter: Any = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network(torch.from_numpy(EXAMPLE))
    assert graph.flops_per_image == counter.get_total_flops() / len(EXAMPLE)
    parameters = sum(4 * parameter.numel() for parameter in network.parameters())
    assert parameters * 0.8 < graph.weight_bytes < parameters * 1.2, "normalisations are folded or doubled"


WEIGHT = np.random.default_rng(0).standard_normal((50, 50)).astype(np.float32)


def _weights_as_usual() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return onnx_model([node], ["batch", 50], [numpy_helper.from_array(WEIGHT, "w")])


def _weights_in_a_node() -> onnx.ModelProto:
    value = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHT))
    return onnx_model([value, helper.make_node("MatMul", ["x", "w"], ["y"])], ["batch", 50])


def _weights_of_a_shape() -> onnx.ModelProto:
    shape = numpy_helper.from_array(np.array([50, 50], np.int64), "shape")
    made = helper.make_node("ConstantOfShape", ["shape"], ["w"])
    return onnx_model([made, helper.make_node("MatMul", ["x", "w"], ["y"])], ["batch", 50], [shape])


def _weights_of_a_shape_in_a_node() -> onnx.ModelProto:
    shape = helper.make_node("Constant", [], ["shape"], value_ints=[50, 50])
    made = helper.make_node("ConstantOfShape", ["shape"], ["w"])
    return onnx_model([shape, made, helper.make_node("MatMul", ["x", "w"], ["y"])], ["batch", 50])


def _weights_that_nothing_reads() -> onnx.ModelProto:
    model = _weights_as_usual()
    model.graph.initializer.append(numpy_helper.from_array(WEIGHT, "unread"))
    return model


@pytest.mark.parametrize(
    "build",
    [
        _weights_as_usual,
        _weights_in_a_node,
        _weights_of_a_shape,
        _weights_of_a_shape_in_a_node,
        _weights_that_nothing_reads,
        lambda: narrowed(_weights_as_usual(), "float16"),
    ],
)
def test_weights_count_as_they_lie_in_memory_however_the_graph_makes_them(
    build: Callable[[], onnx.ModelProto],
) -> None:
    assert Graph(build()).weight_bytes == 4 * 50 * 50


def test_weights_stored_in_eight_bits_count_as_floats_and_quantised_ones_as_bytes() -> None:
    assert 4 * 2500 <= Graph(narrowed(_weights_as_usual(), "int8")).weight_bytes <= 4 * 2500 + 4 * 50
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.ones((50, 50), np.int8), "q"),
        numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
    ]
    assert Graph(onnx_model(nodes, ["batch", 50], weights)).weight_bytes == 2500 + 4


def test_the_peak_counts_what_is_alive_at_the_same_time() -> None:
    """While `b` is made from `a`, `x` waits for the sum: three tensors of 40 bytes; never four."""
    model = onnx_model(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Neg", ["a"], ["b"]),
            helper.make_node("Add", ["b", "x"], ["c"]),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        ["batch", 10],
    )
    assert Graph(model).peak_activation_bytes_per_image == 3 * 40


def test_a_chain_needs_only_two_tensors_at_once() -> None:
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in ("xp", "pq", "qr", "ry")]
    assert Graph(onnx_model(nodes, ["batch", 10])).peak_activation_bytes_per_image == 2 * 40


def test_nodes_that_the_output_does_not_need_are_no_part_of_the_flow() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["unread"]), helper.make_node("Neg", ["x"], ["y"])]
    graph = Graph(onnx_model(nodes, ["batch", 10]))
    assert [node.op_type for node in graph.nodes] == ["Neg"]


def test_a_product_of_two_computed_tensors_counts_for_every_image() -> None:
    model = onnx_model([helper.make_node("MatMul", ["x", "x"], ["y"])], ["batch", 3, 4, 4])
    assert Graph(model).flops_per_image == 2 * 3 * 4 * 4 * 4


def _with_weight(
    node: onnx.NodeProto, weight: tuple[int, ...], source: list[int], result: list[int]
) -> Graph:
    tensor = numpy_helper.from_array(np.ones(weight, np.float32), "w")
    first, last = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in (("x", source), ("y", result))
    )
    graph = helper.make_graph([node], "test", [first], [last], [tensor])
    return Graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


@pytest.mark.parametrize(("transposed", "weight"), [(0, (6, 4)), (1, (4, 6))])
def test_gemm_counts_its_inner_dimension_whichever_way_the_weight_lies(
    transposed: int, weight: tuple[int, int]
) -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=transposed)
    assert _with_weight(node, weight, [6], [4]).flops_per_image == 2 * 6 * 4


def test_a_grouped_convolution_costs_what_its_groups_cost() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4, pads=[1, 1, 1, 1])
    assert _with_weight(node, (8, 1, 3, 3), [4, 5, 5], [8, 5, 5]).flops_per_image == 2 * 8 * 25 * 9


def test_a_transposed_convolution_costs_what_its_mirror_image_costs() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    assert _with_weight(node, (4, 3, 2, 2), [4, 5, 5], [3, 10, 10]).flops_per_image == 2 * 4 * 25 * 3 * 4


def test_weights_whose_batch_is_folded_into_another_dimension_count_each_image_once() -> None:
    """As windows of attention do: [batch, 6, 4] becomes [3 * batch, 2, 4]."""
    shapes = {
        name: numpy_helper.from_array(np.array(to, np.int64), name)
        for name, to in (("windows", [-1, 2, 4]), ("back", [-1, 6, 4]))
    }
    model = onnx_model(
        [
            helper.make_node("Reshape", ["x", "windows"], ["a"]),
            helper.make_node("MatMul", ["a", "w"], ["b"]),
            helper.make_node("Reshape", ["b", "back"], ["y"]),
        ],
        ["batch", 6, 4],
        [*shapes.values(), numpy_helper.from_array(np.ones((4, 4), np.float32), "w")],
    )
    graph = Graph(model)
    assert graph.flops_per_image == 2 * 6 * 4 * 4
    assert graph.bytes_per_image("a") == 4 * 6 * 4
    assert not graph.is_batch_first("a")
    assert graph.is_batch_first("y")


def test_a_shape_that_cannot_be_told_is_an_error_and_no_guess() -> None:
    unknown = helper.make_node("Mystery", ["x"], ["a"], domain="example")
    graph = helper.make_graph(
        [unknown, helper.make_node("Relu", ["a"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example", 1)]
    with pytest.raises(GraphError, match="shape of tensor 'a'"):
        _ = Graph(helper.make_model(graph, opset_imports=opsets)).peak_activation_bytes_per_image


def test_shapes_that_contradict_each_other_are_refused() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weight = numpy_helper.from_array(np.ones((5, 4), np.float32), "w")
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    with pytest.raises(GraphError, match="do not fit together"):
        Graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def test_a_loop_is_one_node_and_what_it_reads_from_outside_is_alive() -> None:
    value = helper.make_tensor_value_info
    inner = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["before"], ["after"])],
        "inner",
        [
            value("round", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, ["batch", 4]),
        ],
        [value("on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, ["batch", 4])],
    )
    node = helper.make_node("Loop", ["", "condition", "x"], ["y"], body=inner)
    condition = numpy_helper.from_array(np.array(1, np.bool_), "condition")
    graph = Graph(onnx_model([node], ["batch", 4], [condition]))
    assert [each.op_type for each in graph.nodes] == ["Loop"]
    assert graph.peak_activation_bytes_per_image >= 4 * 4
