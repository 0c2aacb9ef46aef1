"""What a graph says of its size and work."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from torch.utils.flop_counter import FlopCounterMode

from models.export import export_network
from models.graph import Graph
from tests.models.networks import EXAMPLE, onnx_model, small_network


def test_flops_and_weights_are_those_that_torch_counts() -> None:
    network = small_network()
    graph = Graph(export_network(network, EXAMPLE))
    counter: Any = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network(torch.from_numpy(EXAMPLE))
    assert graph.flops_per_image == counter.get_total_flops() / len(EXAMPLE)
    parameters = sum(4 * parameter.numel() for parameter in network.parameters())
    assert parameters * 0.8 < graph.weight_bytes < parameters * 1.2, "normalisations are folded or doubled"


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


def test_a_product_of_two_computed_tensors_is_refused() -> None:
    model = onnx_model([helper.make_node("MatMul", ["x", "x"], ["y"], name="square")], ["batch", 4, 4])
    with pytest.raises(ValueError, match="MatMul square has no constant weight"):
        _ = Graph(model).flops_per_image


def test_gemm_counts_its_inner_dimension_whichever_way_the_weight_lies() -> None:
    weight = np.zeros((4, 4), np.float32)
    for transposed in (0, 1):
        model = onnx_model([helper.make_node("Gemm", ["x", "w"], ["y"], transB=transposed)], ["batch", 4])
        model.graph.initializer.append(helper.make_tensor("w", 1, weight.shape, weight.ravel()))
        assert Graph(model).flops_per_image == 2 * 4 * 4
