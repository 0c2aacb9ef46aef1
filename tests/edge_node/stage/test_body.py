"""A piece comes from outside: whatever it holds beside nodes and its own weights is refused, and says why."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from splitplace.edge_node.stage.body import MAX_DEPTH, Body, PieceError, read_body
from splitplace.messages.limits import MAX_GRAPH_FILE_BYTES
from splitplace.messages.pieces import Piece

WEIGHTS = "a" * 64
OTHER = "b" * 64


def body(**external: str) -> onnx.ModelProto:
    """A piece with one node and one weight of 2048 bytes in its weights file."""
    model = onnx.ModelProto()
    model.graph.node.append(helper.make_node("Add", ["x", "w"], ["y"]))
    tensor = model.graph.initializer.add(
        name="w", dims=[512], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
    )
    for key, value in ({"location": WEIGHTS, "offset": "4096", "length": "2048"} | external).items():
        tensor.external_data.add(key=key, value=value)
    return model


def read(model: onnx.ModelProto, weights: str | None = WEIGHTS, weights_bytes: int = 8192) -> Body:
    content = model.SerializeToString()
    piece = Piece(
        graph=hashlib.sha256(content).hexdigest(),
        graph_bytes=len(content),
        weights=weights,
        weights_bytes=weights_bytes,
    )
    return read_body(piece, content)


def test_a_piece_says_what_it_makes_and_reads() -> None:
    found = read(body())
    assert found.made == {"w", "y"}
    assert found.read == {"x"}


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../" + WEIGHTS,
        "./" + WEIGHTS,
        WEIGHTS + "\0",
        WEIGHTS.upper(),
        OTHER,
        "",
        "*/_ORT_MEM_ADDR_/*",
    ],
)
def test_weights_in_any_other_file_are_refused(location: str) -> None:
    with pytest.raises(PieceError, match="not the piece's own weights file"):
        read(body(location=location))


def test_weights_outside_are_refused_where_the_piece_has_no_weights_file() -> None:
    with pytest.raises(PieceError, match="not the piece's own weights file"):
        read(body(), weights=None, weights_bytes=0)


@pytest.mark.parametrize(
    "external",
    [
        {"offset": "4097"},
        {"offset": "-4096"},
        {"offset": "0x1000"},
        {"offset": "9" * 30},
        {"offset": "8192"},
        {"length": "4096"},
        {"length": "0"},
        {"checksum": "abc"},
    ],
    ids=str,
)
def test_a_weight_of_the_wrong_size_or_place_is_refused(external: dict[str, str]) -> None:
    with pytest.raises(PieceError, match="the weight 'w'"):
        read(body(**external))


def test_negative_sides_that_multiply_to_the_right_size_are_refused() -> None:
    model = body()
    model.graph.initializer[0].dims[:] = [-2, -256]
    with pytest.raises(PieceError, match="the wrong size"):
        read(model)


def test_names_of_any_letters_are_told_apart() -> None:
    model = body()
    model.graph.node[0].output[0] = "größe"
    assert "größe" in read(model).made


def test_a_second_location_is_refused() -> None:
    model = body()
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(PieceError, match="says its location twice"):
        read(model)


def test_a_weight_without_a_size_is_refused() -> None:
    model = body()
    del model.graph.initializer[0].external_data[2]
    with pytest.raises(PieceError, match="is described by"):
        read(model)


def test_external_weights_are_found_without_their_mark() -> None:
    model = body(location="/etc/passwd")
    model.graph.initializer[0].ClearField("data_location")
    with pytest.raises(PieceError, match="weights file"):
        read(model)


def _with_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))


def _with_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))


def _with_opset(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("", 20))


def _with_function(model: onnx.ModelProto) -> None:
    model.functions.add(name="f")


def branching(*nodes: onnx.NodeProto, weights: Sequence[onnx.TensorProto] = ()) -> onnx.NodeProto:
    """An `If` whose branch has these nodes and gives `t`."""
    given = helper.make_tensor_value_info("t", TensorProto.FLOAT, [1])
    branch = helper.make_graph(list(nodes), "then", [], [given], list(weights))
    return helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)


def _with_weights_elsewhere_in_a_branch(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "inner")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=WEIGHTS)
    model.graph.node.append(branching(helper.make_node("Neg", ["inner"], ["t"]), weights=[tensor]))


def _with_a_constant_elsewhere_in_a_branch(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32))
    tensor.data_location = TensorProto.EXTERNAL
    model.graph.node.append(branching(helper.make_node("Constant", [], ["t"], value=tensor)))


def _with_a_sparse_weight_in_a_branch(model: onnx.ModelProto) -> None:
    node = branching(helper.make_node("Neg", ["x"], ["t"]))
    node.attribute[0].g.sparse_initializer.add()
    model.graph.node.append(node)


def _with_branches_in_branches(model: onnx.ModelProto) -> None:
    node = helper.make_node("Neg", ["x"], ["t"])
    for _ in range(MAX_DEPTH + 1):
        node = branching(node)
    model.graph.node.append(node)


def test_what_a_branch_reads_from_outside_is_read_by_the_piece() -> None:
    model = body()
    inner = [helper.make_node("Add", ["outside", "v"], ["sum"]), helper.make_node("Mul", ["sum", "w"], ["t"])]
    weights = [numpy_helper.from_array(np.zeros(1, np.float32), "v")]
    model.graph.node.append(
        branching(branching(*inner, weights=weights), helper.make_node("Neg", ["z"], ["t"]))
    )
    found = read(model)
    assert found.made == {"w", "y", "z"}
    assert found.read == {"x", "c", "outside"}


def _with_constant_elsewhere(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32))
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=WEIGHTS)
    model.graph.node.append(helper.make_node("Constant", [], ["z"], value=tensor))


def _with_sparse_weight(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def _with_sparse_constant(model: onnx.ModelProto) -> None:
    sparse = onnx.SparseTensorProto()
    model.graph.node.append(helper.make_node("Constant", [], ["z"], sparse_value=sparse))


def _with_the_same_weight_twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "w"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_with_input, "brings inputs of its own"),
        (_with_output, "brings outputs of its own"),
        (_with_opset, "only its graph belongs into a piece"),
        (_with_function, "only its graph belongs into a piece"),
        (_with_weights_elsewhere_in_a_branch, "a node's constant lies in another file"),
        (_with_a_constant_elsewhere_in_a_branch, "a node's constant lies in another file"),
        (_with_a_sparse_weight_in_a_branch, "sparse"),
        (_with_branches_in_branches, "more than 8 deep"),
        (_with_constant_elsewhere, "a node's constant lies in another file"),
        (_with_sparse_weight, "sparse"),
        (_with_sparse_constant, "sparse"),
        (_with_the_same_weight_twice, "makes the tensor 'w' twice"),
    ],
)
def test_what_is_neither_a_node_nor_a_weight_is_refused(
    change: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    model = body()
    change(model)
    with pytest.raises(PieceError, match=reason):
        read(model)


def test_a_graph_file_is_bounded() -> None:
    model = body()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(MAX_GRAPH_FILE_BYTES, np.int8), "large"))
    with pytest.raises(PieceError, match="limit"):
        read(model)


@given(st.data())
def test_a_damaged_graph_file_is_refused_or_read_but_never_breaks(data: st.DataObject) -> None:
    content = bytearray(body().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    piece = Piece(graph=OTHER, graph_bytes=len(content), weights=WEIGHTS, weights_bytes=8192)
    with contextlib.suppress(PieceError):
        read_body(piece, bytes(content))


def test_errors_name_the_piece() -> None:
    model = body(location=OTHER)
    with pytest.raises(PieceError, match=hashlib.sha256(model.SerializeToString()).hexdigest()[:12]):
        read(model)
