from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from splitplace.messages import limits
from splitplace.messages.pieces import WEIGHT_ALIGNMENT
from splitplace.workshop.pieces import cut as cutting
from splitplace.workshop.pieces.chain import chain_of, is_equal, run_stages, write_files
from splitplace.workshop.pieces.cut import CutChain, PieceCutError, cut_into_pieces
from splitplace.workshop.pieces.places import piece_places
from tests.support.small_networks import exported_small_network, random_images
from tests.support.small_pieces import answers, model_of, noise, small_convolutions, weight


def tensors_of(model: onnx.ModelProto) -> list[tuple[str, ...]]:
    return [place.tensors for place in piece_places(model)]


def graphs(cut: CutChain) -> list[onnx.GraphProto]:
    return [onnx.ModelProto.FromString(part.graph).graph for part in cut.files]


def test_every_large_weight_lies_in_one_weights_file_at_its_place() -> None:
    model = small_convolutions()
    cut = cut_into_pieces(model, ["r0", "r1"])
    found = {}
    for part, graph in zip(cut.files, graphs(cut), strict=True):
        for tensor in graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if place:
                assert place["location"] == part.piece.weights
                offset, length = int(place["offset"]), int(place["length"])
                assert offset % WEIGHT_ALIGNMENT == 0
                found[tensor.name] = b"".join(part.weights())[offset : offset + length]
    expected = {
        tensor.name: tensor.raw_data for tensor in model.graph.initializer if tensor.name != "classifier"
    }
    assert found == expected


def test_a_piece_without_large_weights_has_no_weights_file() -> None:
    cut = cut_into_pieces(small_convolutions(), ["c3", "r3"])
    assert cut.chain.pieces[1].weights is None
    assert not list(cut.files[1].weights())


def test_the_same_network_always_gives_the_same_files() -> None:
    first, again = (cut_into_pieces(small_convolutions(), ["r1"]) for _ in range(2))
    assert first == again


def test_weights_that_are_not_raw_are_stored_as_they_lie_in_memory() -> None:
    model = small_convolutions()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).ravel().tolist()
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values)
    listed, raw = cut_into_pieces(model, []).files[0], cut_into_pieces(small_convolutions(), []).files[0]
    assert b"".join(listed.weights()) == b"".join(raw.weights())


@pytest.mark.parametrize("tensors", [["r1", "r0"], ["r0", "r0"], ["nowhere"]])
def test_tensors_must_be_of_the_network_and_in_order(tensors: list[str]) -> None:
    with pytest.raises(PieceCutError, match="in order"):
        cut_into_pieces(small_convolutions(), tensors)


def test_a_piece_that_no_node_accepts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "MAX_FILE_BYTES", 1000)
    with pytest.raises(PieceCutError, match=r"the weights of piece 0 take \d+ bytes; a node accepts 1000"):
        cut_into_pieces(small_convolutions(), [])
    assert limits.MAX_FILE_BYTES > 1000


def test_operators_that_nodes_do_not_have_are_refused() -> None:
    model = small_convolutions()
    model.opset_import.append(helper.make_opsetid("evil.example", 1))
    with pytest.raises(PieceCutError, match=r"evil\.example"):
        cut_into_pieces(model, [])


def shared() -> onnx.ModelProto:
    """A large weight, a small one and one computed from weights, each read early and late."""
    random = np.random.default_rng(1)
    weights = [
        weight("shared", 0.1 * random.standard_normal((16, 16, 3, 3))),
        weight("first", random.standard_normal((16, 3, 3, 3))),
        weight("bias", random.standard_normal((1, 16, 1, 1))),
        weight("classifier", random.standard_normal((16, 4))),
    ]
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["a"], pads=[1] * 4),
        helper.make_node("Exp", ["bias"], ["made"]),
        helper.make_node("Add", ["a", "made"], ["b"]),
        helper.make_node("Conv", ["b", "shared"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "shared"], ["e"], pads=[1] * 4),
        helper.make_node("Mul", ["e", "made"], ["f"]),
        helper.make_node("Sub", ["f", "bias"], ["g"]),
        helper.make_node("GlobalAveragePool", ["g"], ["h"]),
        helper.make_node("Flatten", ["h"], ["i"]),
        helper.make_node("Gemm", ["i", "classifier"], ["logits"]),
    ]
    return model_of(nodes, weights, [3, 12, 12], [4])


@pytest.mark.parametrize("make", [small_convolutions, shared])
def test_every_grouping_of_pieces_into_stages_is_the_network(
    tmp_path_factory: pytest.TempPathFactory, make: object
) -> None:
    model = make()  # type: ignore[operator]
    folder = tmp_path_factory.mktemp("pieces")
    cut = cut_into_pieces(model, ["b", "d", "f"] if make is shared else ["r0", "c2", "r3"])
    write_files(folder, cut)
    expected = answers(model, noise())
    assert is_equal(folder, cut, noise(), expected)
    for count in (1, 2, 3):
        for cuts in combinations((1, 2, 3), count):
            assert np.allclose(run_stages(folder, cut, cuts, noise()), expected, atol=1e-5)


def test_copies_of_what_two_pieces_read_have_names_of_their_own() -> None:
    first, *_, last = graphs(cut_into_pieces(shared(), ["b", "d", "f"]))
    assert "made" in {name for node in first.node for name in node.output}
    assert "splitplace.piece3.bias" in {tensor.name for tensor in last.initializer}


def test_a_network_exported_from_torch_is_equal_in_every_piece(tmp_path: Path) -> None:
    model = exported_small_network()
    cut = cut_into_pieces(model, tensors_of(model))
    write_files(tmp_path, cut)
    images = random_images(5)
    assert is_equal(tmp_path, cut, images, answers(model, images))
    ends = range(1, len(cut.chain.pieces))
    assert np.allclose(run_stages(tmp_path, cut, tuple(ends), images), answers(model, images), atol=1e-5)


def test_required_cuts_are_bounds() -> None:
    model = small_convolutions()
    chain = chain_of(model, required=["r1"]).chain
    assert [bundle[0].name for bundle in chain.bundles] == ["images", "r1", "logits"]
    with pytest.raises(PieceCutError, match="cannot be cut at 'nowhere'"):
        chain_of(model, required=["nowhere"])
