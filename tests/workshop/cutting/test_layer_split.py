"""Cutting a graph where one tensor crosses."""

from pathlib import Path

import networkx as nx
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from splitplace.edge_node.runtime import load_fragment
from splitplace.workshop.cutting.layer_split import cut, cut_points
from splitplace.workshop.networks.common import Pixels
from splitplace.workshop.networks.vision_transformer import VisionTransformer
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.onnx.graph import Graph
from tests.support.small_networks import (
    EXAMPLE,
    exported_small_network,
    onnx_model,
    random_images,
)


@pytest.fixture(scope="module")
def whole() -> onnx.ModelProto:
    return exported_small_network()


def _run(folder: Path, models: tuple[onnx.ModelProto, ...], array: np.ndarray) -> np.ndarray:
    for index, model in enumerate(models):
        path = folder / f"{index}.onnx"
        path.write_bytes(file_content(model))
        array = load_fragment(path).run(array)
    return array


def evenly_cut(model: onnx.ModelProto, stages: int) -> tuple[onnx.ModelProto, ...]:
    points = [point.tensor for point in cut_points(model)]
    return cut(model, [points[len(points) * number // stages] for number in range(1, stages)])


@pytest.mark.parametrize("stages", [2, 3, 5])
def test_the_joined_fragments_answer_as_the_whole(
    whole: onnx.ModelProto, tmp_path: Path, stages: int
) -> None:
    chain = evenly_cut(whole, stages)
    assert len(chain) == stages
    images = random_images(9)
    expected = _run(tmp_path, (whole,), images)
    np.testing.assert_allclose(_run(tmp_path, chain, images), expected, atol=1e-4)


def test_every_cut_point_works_and_all_at_once_too(whole: onnx.ModelProto, tmp_path: Path) -> None:
    points = cut_points(whole)
    assert len(points) > 5
    images = random_images(3)
    expected = _run(tmp_path, (whole,), images)
    for point in points:
        np.testing.assert_allclose(_run(tmp_path, cut(whole, [point.tensor]), images), expected, atol=1e-4)
    pieces = cut(whole, [point.tensor for point in points])
    np.testing.assert_allclose(_run(tmp_path, pieces, images), expected, atol=1e-4)


def test_work_and_weights_of_the_fragments_add_up_to_the_whole(whole: onnx.ModelProto) -> None:
    chain = evenly_cut(whole, 3)
    graphs = [Graph(model) for model in chain]
    assert sum(graph.flops_per_image for graph in graphs) == Graph(whole).flops_per_image
    assert all(0 < graph.weight_bytes < Graph(whole).weight_bytes for graph in graphs)


def test_no_cut_lies_inside_a_residual_block() -> None:
    model = onnx_model(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Neg", ["a"], ["inside"]),
            helper.make_node("Add", ["inside", "a"], ["b"]),
            helper.make_node("Neg", ["b"], ["y"]),
        ],
        ["batch", 10],
    )
    assert [(point.tensor, point.bytes_per_image) for point in cut_points(model)] == [("a", 40), ("b", 40)]


def test_a_transformer_is_cut_although_its_class_token_needs_the_size_of_the_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VisionTransformer(10, pixels=Pixels((33.3,), (78.6,)), side=28, width=0.25, depth=2)
    whole = export_network(network, EXAMPLE)
    points = [point.tensor for point in cut_points(whole)]
    assert len(points) >= 8, "before and behind the attention and the perceptron of each block"
    images = random_images(3)
    expected = _run(tmp_path, (whole,), images)
    with torch.inference_mode():
        np.testing.assert_allclose(network(torch.from_numpy(images)).numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(_run(tmp_path, cut(whole, points), images), expected, atol=1e-4)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12))
def test_the_cut_points_are_the_dominators_of_the_output(sources: list[tuple[int, int]]) -> None:
    """In random graphs, in which each node adds two tensors that were made before."""
    nodes = []
    made = ["x"]
    for index, (first, second) in enumerate(sources):
        names = [made[first % len(made)], made[second % len(made)]]
        made.append("y" if index == len(sources) - 1 else f"t{index}")
        nodes.append(helper.make_node("Add", names, [made[-1]]))
    flow = nx.DiGraph((source, node.output[0]) for node in nodes for source in node.input)
    dominators = nx.immediate_dominators(flow, "x") | {"x": None}
    expected = []
    tensor = dominators["y"]
    while tensor not in {"x", None}:
        expected.append(tensor)
        tensor = dominators[tensor]
    found = cut_points(onnx_model(nodes, ["batch", 4]))
    assert [point.tensor for point in found] == expected[::-1]


def test_a_tensor_after_a_relu_is_expected_to_compress_better() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    after_relu, dense = cut_points(onnx_model(nodes, ["batch", 10]))
    assert after_relu.sent_bytes_per_image < dense.sent_bytes_per_image == 40


def test_a_graph_that_carries_its_input_to_the_end_has_no_cut() -> None:
    model = onnx_model(
        [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Add", ["a", "x"], ["y"])], ["batch", 10]
    )
    assert cut_points(model) == ()
