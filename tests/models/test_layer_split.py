"""Cutting a graph where one tensor crosses."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from edge_node.runtime import FragmentRuntime
from models.balance import Target
from models.export import export_network, file_content
from models.graph import Graph
from models.layer_split import CutError, balanced_chain, cut, cut_points
from tests.models.networks import EXAMPLE, onnx_model, random_images, small_network


@pytest.fixture(scope="module")
def whole() -> onnx.ModelProto:
    return export_network(small_network(), EXAMPLE)


def _run(folder: Path, models: tuple[onnx.ModelProto, ...], array: np.ndarray) -> np.ndarray:
    for index, model in enumerate(models):
        path = folder / f"{index}.onnx"
        path.write_bytes(file_content(model))
        array = FragmentRuntime(path).run(array)
    return array


@pytest.mark.parametrize("stages", [2, 3, 5])
def test_the_joined_fragments_answer_as_the_whole(
    whole: onnx.ModelProto, tmp_path: Path, stages: int
) -> None:
    points = cut_points(whole)
    chain = balanced_chain(whole, points, [1.0] * (len(points) + 1), stages, Target())
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
    points = cut_points(whole)
    chain = balanced_chain(whole, points, [1.0] * (len(points) + 1), 3, Target())
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
    assert [(point.tensor, point.bytes_per_image, point.after_relu) for point in cut_points(model)] == [
        ("a", 40, True),
        ("b", 40, False),
    ]


def test_a_tensor_after_a_relu_is_expected_to_compress_better() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    after_relu, dense = cut_points(onnx_model(nodes, ["batch", 10]))
    assert (after_relu.sent_bytes_per_image, dense.sent_bytes_per_image) == (10, 20)


def test_a_graph_that_carries_its_input_to_the_end_has_no_cut() -> None:
    model = onnx_model(
        [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Add", ["a", "x"], ["y"])], ["batch", 10]
    )
    assert cut_points(model) == ()
    with pytest.raises(CutError, match="0 places"):
        balanced_chain(model, (), [1.0], 2, Target())
