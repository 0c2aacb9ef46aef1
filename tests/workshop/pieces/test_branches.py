"""Networks with an `If`: its branches lie in one piece, with the weights that only they read."""

from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.pieces.chain import is_equal, run_stages, write_files
from splitplace.workshop.pieces.cut import cut_into_pieces
from splitplace.workshop.pieces.places import piece_places
from splitplace.workshop.pieces.times import segment_milliseconds
from tests.support.small_pieces import SIDE, answers, model_of, noise, weight


def branching() -> onnx.ModelProto:
    """Two layers around an `If` whose branches read one layer's output and a weight of their own each."""
    random = np.random.default_rng(4)
    weights = [
        weight("first", random.standard_normal((16, 3, 3, 3))),
        weight("bright", random.standard_normal((16, 16, 3, 3)) / 10),
        weight("dark", random.standard_normal((16, 16, 3, 3)) / 10),
        weight("classifier", random.standard_normal((16, 4))),
        numpy_helper.from_array(np.array(0.0, np.float32), "zero"),
    ]

    def branch(name: str) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, ["batch", 16, SIDE, SIDE])
        scale = numpy_helper.from_array(np.full((1, 16, 1, 1), 0.5, np.float32), f"{name}.scale")
        nodes = [
            helper.make_node("Conv", ["r", name], [f"{name}.conv"], pads=[1] * 4),
            helper.make_node("Mul", [f"{name}.conv", f"{name}.scale"], [f"{name}.out"]),
        ]
        return helper.make_graph(nodes, name, [], [made], [scale])

    nodes = [
        helper.make_node("Conv", ["images", "first"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Greater", ["mean", "zero"], ["is_bright"]),
        helper.make_node(
            "If", ["is_bright"], ["chosen"], then_branch=branch("bright"), else_branch=branch("dark")
        ),
        helper.make_node("Relu", ["chosen"], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "classifier"], ["logits"]),
    ]
    return model_of(nodes, weights, [3, SIDE, SIDE], [4])


def test_what_only_branches_read_counts_and_is_alive_until_then() -> None:
    graph = Graph(branching())
    conv = 16 * 16 * 9 * 4
    assert graph.weight_bytes == 16 * 3 * 9 * 4 + 2 * conv + 16 * 4 * 4 + 4 + 2 * 16 * 4
    after = dict(zip([node.op_type for node in graph.nodes], graph.live(), strict=True))
    assert after["Greater"] == {"r", "is_bright"}


def test_every_cut_around_branches_gives_the_network(tmp_path: Path) -> None:
    model = branching()
    places = [place.tensors for place in piece_places(model)]
    assert ("chosen",) in places or ("s",) in places
    cut = cut_into_pieces(model, places)
    write_files(tmp_path, cut)
    for images in (noise() + 1, noise() - 1):
        assert is_equal(tmp_path, cut, images, answers(model, images))
        for cuts in combinations(range(1, len(cut.chain.pieces)), 2):
            found = run_stages(tmp_path, cut, cuts, images)
            assert np.allclose(found, answers(model, images), atol=1e-5)


def test_networks_with_branches_can_be_timed() -> None:
    model = branching()
    ends = [place.end for place in piece_places(model)]
    assert sum(segment_milliseconds(model, ends)) > 0
