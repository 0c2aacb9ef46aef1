"""Large networks are handled without copies of their weights, and give the same."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.workshop.onnx import sessions
from splitplace.workshop.onnx.aside import laid_aside, values_of
from splitplace.workshop.onnx.light import without_weights
from splitplace.workshop.onnx.sessions import session_of


def network() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    weights: dict[str, NDArray[Any]] = {
        "w": random.standard_normal((64, 48)).astype(np.float32),
        "h": random.standard_normal((48, 32)).astype(np.float16),
        "empty": np.zeros((0, 32), np.float32),
        "scale": np.array(0.5, np.float32),
        "axes": np.array([1]),
    }
    listed = helper.make_tensor("listed", TensorProto.FLOAT, [32], range(32))  # not in raw bytes
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Cast", ["h"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["a", "wide"], ["b"]),
        helper.make_node("Mul", ["b", "scale"], ["c"]),
        helper.make_node("Add", ["c", "listed"], ["d"]),
        helper.make_node("Concat", ["d", "empty"], ["e"], axis=0),
        helper.make_node("ReduceSum", ["e", "axes"], ["y"], keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "light",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [*(numpy_helper.from_array(array, name) for name, array in weights.items()), listed],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_large_network_runs_from_a_file_as_from_bytes_and_is_not_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = network()
    before = model.SerializeToString(deterministic=True)
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    (expected,) = session_of(model).run(None, {"x": x})
    monkeypatch.setattr(sessions, "LARGE_MODEL_BYTES", 0)
    given: list[bytes] = []
    real = ort.InferenceSession

    def noted(content: bytes, *more: object, **options: object) -> ort.InferenceSession:
        given.append(content)
        return real(content, *more, **options)

    monkeypatch.setattr("onnxruntime.InferenceSession", noted)
    (found,) = session_of(model).run(None, {"x": x})
    np.testing.assert_array_equal(found, expected)
    assert len(given[0]) < 64 * 48 * 4
    assert model.SerializeToString(deterministic=True) == before


def test_weights_that_are_laid_aside_have_the_same_values_and_take_no_room_in_the_model(
    tmp_path: Path,
) -> None:
    model = network()
    small = laid_aside(model, tmp_path / "weights")
    assert small.ByteSize() < 5000
    assert (tmp_path / "weights").stat().st_size > 12000
    ours = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    theirs = {tensor.name: values_of(tensor) for tensor in small.graph.initializer}
    assert list(theirs) == list(ours)
    for name, array in ours.items():
        np.testing.assert_array_equal(theirs[name], array)
    for part in ("node", "input", "output"):
        assert list(getattr(small.graph, part)) == list(getattr(model.graph, part))
    assert (small.opset_import, small.ir_version) == (model.opset_import, model.ir_version)


def test_weights_become_inputs_where_only_shapes_count() -> None:
    model = network()
    bare, weights = without_weights(model)
    assert weights == {"w"}
    assert [value.name for value in bare.graph.input] == ["x", "w"]
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred, full_check=True)
    assert "w" in {tensor.name for tensor in model.graph.initializer}
