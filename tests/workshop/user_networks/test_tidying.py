"""Networks that ONNX Runtime reads all the same are brought into one form, or say what contradicts."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from splitplace.workshop.user_networks.tidying import UntidyError, tidied

ROOM = 1 << 20
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])
RELU = helper.make_node("Relu", ["p"], ["y"])
PRODUCT = helper.make_node("MatMul", ["x", "w"], ["p"])
WEIGHT = np.array([[0.0, 2.0], [0.0, 0.0], [-1.0, 0.0]], np.float32)


def _model(
    nodes: list[onnx.NodeProto], *versions: tuple[str, int], sparse: onnx.SparseTensorProto | None = None
) -> onnx.ModelProto:
    weights = [] if sparse else [numpy_helper.from_array(WEIGHT, "w")]
    graph = helper.make_graph(nodes, "g", [X], [Y], weights, sparse_initializer=[sparse] if sparse else [])
    opsets = [helper.make_opsetid(*version) for version in versions or (("", 17),)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _sparse(places: NDArray[np.int64], *sides: int) -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.array([2.0, -1.0], np.float32), "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), sides)


def _answer(model: onnx.ModelProto) -> NDArray[np.float32]:
    row = np.array([[1.0, 5.0, -3.0]], np.float32)
    return np.asarray(next(iter(ReferenceEvaluator(model).run(None, {"x": row}))))


def test_nodes_stand_in_the_order_in_which_they_compute() -> None:
    model = _model([RELU, PRODUCT])
    tidied(model, ROOM)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Relu"]
    np.testing.assert_array_equal(_answer(model), [[3.0, 2.0]])


def test_nodes_that_wait_for_each_other_are_refused() -> None:
    with pytest.raises(UntidyError, match="circle"):
        tidied(_model([helper.make_node("Add", ["x", "y"], ["p"]), RELU]), ROOM)


@pytest.mark.parametrize("places", [np.array([1, 4]), np.array([[0, 1], [2, 0]])], ids=["flat", "pairs"])
def test_sparse_weights_become_dense(places: NDArray[np.int64]) -> None:
    model = _model([PRODUCT, RELU], sparse=_sparse(places, 3, 2))
    tidied(model, ROOM)
    np.testing.assert_array_equal(_answer(model), [[3.0, 2.0]])


def test_sparse_constants_become_dense() -> None:
    constant = helper.make_node("Constant", [], ["s"], sparse_value=_sparse(np.array([1, 4]), 3, 2))
    model = _model([constant, helper.make_node("MatMul", ["x", "s"], ["p"]), RELU])
    tidied(model, ROOM)
    np.testing.assert_array_equal(_answer(model), [[3.0, 2.0]])


@pytest.mark.parametrize(
    ("places", "sides", "problem"),
    [
        (np.array([1, 4]), (1 << 20, 1 << 20), "takes"),
        (np.array([1, 7]), (3, 2), "damaged"),
        (np.array([[0, 1], [3, 0]]), (3, 2), "damaged"),
    ],
)
def test_sparse_weights_are_bounded_and_checked(
    places: NDArray[np.int64], sides: tuple[int, ...], problem: str
) -> None:
    with pytest.raises(UntidyError, match=problem):
        tidied(_model([PRODUCT, RELU], sparse=_sparse(places, *sides)), ROOM)


def test_a_set_of_operators_has_one_version() -> None:
    model = _model([PRODUCT, RELU], ("", 17), ("ai.onnx", 17))
    tidied(model, ROOM)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    with pytest.raises(UntidyError, match="two versions"):
        tidied(_model([PRODUCT, RELU], ("", 17), ("ai.onnx", 11)), ROOM)


def test_operators_of_onnx_runtime_get_a_version() -> None:
    model = _model([PRODUCT, helper.make_node("Gelu", ["p"], ["y"], domain="com.microsoft")])
    tidied(model, ROOM)
    assert ("com.microsoft", 1) in [(item.domain, item.version) for item in model.opset_import]


def test_a_shared_weight_is_read_without_copies() -> None:
    copies = [helper.make_node("Identity", ["w"], ["v"]), helper.make_node("Identity", ["v"], ["u"])]
    reader = helper.make_node("MatMul", ["x", "u"], ["p"])
    model = _model([*copies, reader, RELU])
    tidied(model, ROOM)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Relu"]
    np.testing.assert_array_equal(_answer(model), [[3.0, 2.0]])


def test_a_weight_that_is_an_output_is_still_copied() -> None:
    model = _model([helper.make_node("Identity", ["w"], ["y"])])
    tidied(model, ROOM)
    np.testing.assert_array_equal(_answer(model), WEIGHT)
