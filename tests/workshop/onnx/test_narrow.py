"""Weights stored narrower give the same network, in smaller files."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.edge_node.runtime import load_fragment
from splitplace.workshop.cutting.layer_split import cut, cut_points
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.onnx.narrow import Storage, narrowed
from tests.support.small_networks import exported_small_network, random_images


def _run(folder: Path, model: onnx.ModelProto, array: NDArray[Any]) -> NDArray[np.float32]:
    path = folder / "fragment.onnx"
    path.write_bytes(file_content(model))
    return load_fragment(path).run(array)


@pytest.mark.parametrize(
    ("storage", "share", "tolerance"), [("float32", 1.0, 0.0), ("float16", 0.75, 2e-3), ("int8", 0.65, 5e-2)]
)
def test_files_shrink_and_answers_hardly_change(
    storage: Storage, share: float, tolerance: float, tmp_path: Path
) -> None:
    model = exported_small_network()
    stored = narrowed(model, storage)
    onnx.checker.check_model(stored, full_check=True)
    assert len(file_content(stored)) <= share * len(file_content(model))
    images = random_images(8)
    exact = _run(tmp_path, model, images)
    difference = np.abs(_run(tmp_path, stored, images) - exact).max()
    assert difference <= tolerance * np.abs(exact).max()
    assert (difference > 0) == (storage != "float32")


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_a_narrowed_chain_equals_the_narrowed_whole(storage: Storage, tmp_path: Path) -> None:
    model = exported_small_network()
    middle = cut_points(model)[len(cut_points(model)) // 2]
    tensor: NDArray[Any] = random_images(4)
    for fragment in cut(model, [middle.tensor]):
        tensor = _run(tmp_path, narrowed(fragment, storage), tensor)
    whole = _run(tmp_path, narrowed(model, storage), random_images(4))
    np.testing.assert_allclose(tensor, whole, atol=1e-5)


def test_weights_beyond_the_range_of_float16_stay_as_they_are() -> None:
    model = _matrix_product(np.full((32, 32), 70_000.0, np.float32))
    assert file_content(narrowed(model, "float16")) == file_content(model)


def test_each_column_of_a_matrix_has_its_own_scale(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    weight *= np.geomspace(1e-3, 1e3, 32, dtype=np.float32)
    weight[:, 5] = 0
    model = _matrix_product(weight)
    given = np.eye(32, dtype=np.float32)
    result = _run(tmp_path, narrowed(model, "int8"), given)
    columns = np.abs(weight).max(axis=0)
    assert (np.abs(result - weight).max(axis=0) <= columns / 250).all()


def _matrix_product(weight: NDArray[np.float32]) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 32]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "test",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
