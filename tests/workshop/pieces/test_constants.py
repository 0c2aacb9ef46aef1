from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from splitplace.workshop.pieces.chain import chain_of, is_equal, write_files
from splitplace.workshop.pieces.constants import ConstantError, with_constants_as_weights
from splitplace.workshop.pieces.cut import cut_into_pieces
from tests.support.small_pieces import answers, model_of, noise, small_convolutions, weight


def constants_as_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """As some exporters write it: every weight in a `Constant` node."""
    nodes = [
        helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer
    ]
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.initializer[:], changed.graph.node[:]
    changed.graph.node.extend([*nodes, *model.graph.node])
    return changed


def made_of_a_shape(size: int) -> onnx.ModelProto:
    shape = numpy_helper.from_array(np.array([size, 3, 3, 3]), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["w"], value=weight("", np.array([0.25]))),
        helper.make_node("Conv", ["images", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["logits"]),
    ]
    return model_of(nodes, [shape], [3, 12, 12], [size])


def test_weights_in_constant_nodes_become_weights() -> None:
    model = small_convolutions()
    hoisted = with_constants_as_weights(constants_as_nodes(model))
    assert sorted(hoisted.graph.initializer, key=str) == sorted(model.graph.initializer, key=str)
    assert list(hoisted.graph.node) == list(model.graph.node)


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("value_float", 1.5, np.array(1.5, np.float32)),
        ("value_floats", [1.5, 2.0], np.array([1.5, 2.0], np.float32)),
        ("value_int", 3, np.array(3)),
        ("value_ints", [3, 4], np.array([3, 4])),
    ],
)
def test_plain_numbers_become_weights_too(attribute: str, value: Any, expected: np.ndarray) -> None:
    model = small_convolutions()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["number"], **{attribute: value}))
    found = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in with_constants_as_weights(model).graph.initializer
    }["number"]
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


def test_texts_stay_nodes() -> None:
    model = small_convolutions()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["text"], value_string="hello"))
    assert with_constants_as_weights(model).graph.node[0].op_type == "Constant"


def test_weights_of_a_shape_are_stored_and_counted() -> None:
    cut = cut_into_pieces(with_constants_as_weights(made_of_a_shape(64)), [])
    assert cut.chain.pieces[0].weights_bytes == 64 * 27 * 4


def test_a_few_bytes_cannot_ask_for_any_number_of_weights() -> None:
    model = made_of_a_shape(64)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([2**40, 3, 3, 3]), "shape"))
    with pytest.raises(ConstantError, match="too large"):
        with_constants_as_weights(model)


@pytest.mark.parametrize("model", [constants_as_nodes(small_convolutions()), made_of_a_shape(64)])
def test_a_network_answers_the_same_with_its_constants_as_weights(
    tmp_path_factory: pytest.TempPathFactory, model: onnx.ModelProto
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    chain = chain_of(model)
    write_files(folder, chain)
    assert is_equal(folder, chain, noise(), answers(model, noise()))
