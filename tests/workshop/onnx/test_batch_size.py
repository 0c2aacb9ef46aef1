"""Sizes that a graph computes from the shapes of its tensors."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from splitplace.workshop.cutting.layer_split import cut, cut_points
from splitplace.workshop.onnx.batch_size import BATCH_SIZE, with_plain_sizes
from tests.support.small_networks import onnx_model


def weight(name: str, value: object, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def answer(model: onnx.ModelProto, array: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {model.graph.input[0].name: array})[0]
    return result


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def batch(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, *shape)).astype(np.float32)


NEGATIONS = [helper.make_node("Neg", [a], [b]) for a, b in ("xa", "ab", "bc")]
EARLY_SHAPE_USED_LATE = onnx_model(
    [
        helper.make_node("Shape", ["x"], ["shape"]),
        *NEGATIONS,
        helper.make_node("Flatten", ["c"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["y"]),
    ],
    ["batch", 2, 6],
)
CLASS_TOKEN = onnx_model(
    [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["count"]),
        helper.make_node("Concat", ["count", "one", "two"], ["wanted"], axis=0),
        *NEGATIONS,
        helper.make_node("Expand", ["token", "wanted"], ["tokens"]),
        helper.make_node("Concat", ["tokens", "c"], ["joined"], axis=1),
        helper.make_node("Slice", ["joined", "one", "many", "one"], ["y"]),
    ],
    ["batch", 3, 2],
    [
        weight("zero", [0]),
        weight("one", [1]),
        weight("two", [2]),
        weight("many", [99]),
        weight("token", [[[7, 8]]], np.float32),
    ],
)
NO_LINE = onnx_model(
    [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Mul", ["shape", "shape"], ["square"]),
        helper.make_node("Cast", ["square"], ["factor"], to=TensorProto.FLOAT),
        *NEGATIONS,
        helper.make_node("Mul", ["c", "factor"], ["y"]),
    ],
    ["batch", 2],
)
SCALAR_SIZE = onnx_model(
    [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["count"], axis=0),
        *NEGATIONS,
        helper.make_node("Mul", ["count", "three"], ["rows"]),
        helper.make_node("Range", ["nothing", "rows", "three"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "column"], ["added"]),
        helper.make_node("Add", ["c", "added"], ["y"]),
    ],
    ["batch", 4],
    [weight("first", 0), weight("three", 3), weight("nothing", 0), weight("column", [-1, 1])],
)
EIGHTHS = onnx_model(
    [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["count"], axis=0),
        helper.make_node("Add", ["count", "seven"], ["more"]),
        helper.make_node("Div", ["more", "eight"], ["eighths"]),
        *NEGATIONS,
        helper.make_node("Cast", ["eighths"], ["added"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["c", "added"], ["y"]),
    ],
    ["batch", 4],
    [weight("first", 0), weight("seven", 7), weight("eight", 8)],
)
"""ceil(batch / 8) is added: 1 in all small batches."""
SHAPE_OF_EIGHTHS = onnx_model(
    [
        *EIGHTHS.graph.node[:4],
        *NEGATIONS,
        helper.make_node("Reshape", ["eighths", "one"], ["rows"]),
        helper.make_node("Slice", ["c", "zero", "rows", "zero"], ["some"]),
        helper.make_node("Shape", ["some"], ["asked"]),
        helper.make_node("Cast", ["asked"], ["lengths"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["lengths"], ["longest"]),
        helper.make_node("Add", ["c", "longest"], ["y"]),
    ],
    ["batch", 1],
    [*EIGHTHS.graph.initializer, weight("one", [1]), weight("zero", [0])],
)
"""The same, asked of a tensor that has ceil(batch / 8) rows."""


def test_a_network_that_asks_for_no_sizes_is_left_alone() -> None:
    model = onnx_model([*NEGATIONS[:2], helper.make_node("Neg", ["b"], ["y"])], ["batch", 4])
    assert with_plain_sizes(model) is model


def test_a_shape_to_return_to_becomes_a_constant() -> None:
    plain = with_plain_sizes(EARLY_SHAPE_USED_LATE)
    assert operators(plain) == ["Neg", "Neg", "Neg", "Flatten", "Reshape"]


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (EARLY_SHAPE_USED_LATE, (2, 6)),
        (CLASS_TOKEN, (3, 2)),
        (SCALAR_SIZE, (4,)),
        (NO_LINE, (2,)),
        (EIGHTHS, (4,)),
        (SHAPE_OF_EIGHTHS, (1,)),
    ],
    ids=["reshape", "expand", "range", "square", "eighths", "shape of eighths"],
)
@pytest.mark.parametrize("count", [1, 2, 7, 9, 1024])
def test_plain_sizes_change_no_answer_before_and_after_cuts(
    model: onnx.ModelProto, shape: Sequence[int], count: int
) -> None:
    plain = with_plain_sizes(model)
    array = batch(count, *shape)
    expected = answer(model, array)
    np.testing.assert_array_equal(answer(plain, array), expected)
    points = [point.tensor for point in cut_points(plain)]
    assert points[:3] == ["a", "b", "c"]
    assert all(fragment.graph.input[0].name != BATCH_SIZE for fragment in cut(plain, points))
    for fragment in cut(plain, points):
        array = answer(fragment, array)
    np.testing.assert_array_equal(array, expected)


def test_a_shape_that_depends_on_the_values_is_never_asked_across_a_cut() -> None:
    model = onnx_model(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("NonZero", ["a"], ["found"]),
            helper.make_node("Shape", ["found"], ["shape"]),
            helper.make_node("Cast", ["shape"], ["factor"], to=TensorProto.FLOAT),
            helper.make_node("Neg", ["a"], ["b"]),
            helper.make_node("Mul", ["b", "factor"], ["y"]),
        ],
        ["batch", 2],
    )
    plain = with_plain_sizes(model)
    np.testing.assert_array_equal(answer(plain, batch(4, 2)), answer(model, batch(4, 2)))
    assert [point.tensor for point in cut_points(plain)] == ["a"]


def test_a_network_may_be_changed_twice_as_one_that_torch_exports_for_a_user() -> None:
    twice = with_plain_sizes(with_plain_sizes(CLASS_TOKEN))
    onnx.checker.check_model(twice, full_check=True)
    for count in (1, 4):
        images = batch(count, 3, 2)
        np.testing.assert_array_equal(answer(twice, images), answer(CLASS_TOKEN, images))


@pytest.mark.parametrize("name", ["shape", "zero", "one", "batch"])
def test_a_size_may_have_any_name(name: str) -> None:
    model = onnx_model(
        [
            helper.make_node("Shape", ["x"], [name], start=1),
            helper.make_node("Cast", [name], ["sides"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["x", "sides"], ["a"]),
            helper.make_node("Shape", ["x"], ["all"]),
            helper.make_node("Cast", ["all"], ["count"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["a", "count"], ["y"]),
        ],
        ["batch", 2],
    )
    plain = with_plain_sizes(model)
    onnx.checker.check_model(plain, full_check=True)
    np.testing.assert_array_equal(answer(plain, batch(4, 2)), answer(model, batch(4, 2)))


def test_a_network_that_does_not_run_is_refused() -> None:
    model = onnx_model(
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Reshape", ["x", "five"], ["a"]),
            helper.make_node("Reshape", ["a", "shape"], ["y"]),
        ],
        ["batch", 4],
        [weight("five", [5, -1])],
    )
    model.graph.node.insert(1, helper.make_node("Shape", ["a"], ["other"]))
    with pytest.raises(ValueError, match="does not run with batches"):
        with_plain_sizes(model)
