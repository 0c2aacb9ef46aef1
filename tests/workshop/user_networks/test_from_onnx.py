"""ONNX files of users: what is accepted, how bytes become their input, and what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.edge_node.runtime import load_fragment
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.user_networks.from_onnx import Wishes, adopt, pictures_without_answer
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import UserNetworkError, read_onnx
from splitplace.workshop.user_networks.source import source_of
from tests.support.odd_networks import doubling

CLASSES = 5
PLAIN = Preprocessing.for_channels(3, [], [], 1.0)
IMAGES = np.random.default_rng(1).integers(0, 256, (4, 3, 8, 6), dtype=np.uint8)


def _model(
    *,
    batch: int | str = "n",
    sides: Sequence[int] = (3, 8, 6),
    softmax: bool = False,
    dtype: int = TensorProto.FLOAT,
    opset: int = 17,
) -> onnx.ModelProto:
    """Flattens a picture by Reshape, as exporters write it, and multiplies."""
    pixels = int(np.prod(sides))
    weight = np.random.default_rng(0).standard_normal((pixels, CLASSES)).astype(np.float32)
    target = np.array([batch if isinstance(batch, int) else -1, pixels], np.int64)
    floats = "x"
    nodes = []
    if dtype != TensorProto.FLOAT:
        floats = "floats"
        nodes.append(helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Reshape", [floats, "target"], ["flat"], allowzero=1))
    nodes.append(helper.make_node("MatMul", ["flat", "weight"], ["logits"]))
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["shares"]))
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", dtype, [batch, *sides])],
        [
            helper.make_tensor_value_info(
                "shares" if softmax else "logits", TensorProto.FLOAT, [batch, CLASSES]
            )
        ],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(target, "target")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _expected(pixels: NDArray[Any]) -> NDArray[np.float32]:
    flat = pixels.reshape(len(pixels), -1).astype(np.float32)
    weight = np.random.default_rng(0).standard_normal((flat.shape[1], CLASSES)).astype(np.float32)
    product: NDArray[np.float32] = flat @ weight
    return product


def _run(folder: Path, model: onnx.ModelProto) -> NDArray[np.float32]:
    path = folder / "fragment.onnx"
    path.write_bytes(file_content(model))
    runtime = load_fragment(path)
    assert runtime.input == TensorSpec(dtype="uint8", shape=(3, 8, 6))
    assert runtime.output == TensorSpec(dtype="float32", shape=(CLASSES,))
    return runtime.run(IMAGES)


def test_bytes_become_the_floats_that_the_network_was_trained_on(tmp_path: Path) -> None:
    preprocessing = Preprocessing.for_channels(3, [0.4, 0.5, 0.6], [0.2], 1.0)
    found = _run(tmp_path, adopt(_model(), preprocessing).model)
    scaled = IMAGES / 255
    normalised = (scaled - np.array([0.4, 0.5, 0.6]).reshape(3, 1, 1)) / 0.2
    np.testing.assert_allclose(found, _expected(normalised), rtol=1e-3, atol=1e-3)


def test_a_fixed_batch_becomes_a_free_one(tmp_path: Path) -> None:
    found = _run(tmp_path, adopt(_model(batch=1), PLAIN).model)
    np.testing.assert_allclose(found, _expected(IMAGES / 255), rtol=1e-3, atol=1e-3)


def test_a_softmax_at_the_end_is_taken_off(tmp_path: Path) -> None:
    found = _run(tmp_path, adopt(_model(softmax=True), PLAIN).model)
    np.testing.assert_allclose(found, _expected(IMAGES / 255), rtol=1e-3, atol=1e-3)


def test_a_network_that_keeps_channels_last_reads_the_same_pictures(tmp_path: Path) -> None:
    model = _model(sides=(8, 6, 3))
    assert source_of(model).spec.shape == (3, 8, 6)
    found = _run(tmp_path, adopt(model, PLAIN).model)
    np.testing.assert_allclose(found, _expected(np.moveaxis(IMAGES, 1, -1) / 255), rtol=1e-3, atol=1e-3)


def test_a_network_that_reads_bytes_gets_them_as_they_are(tmp_path: Path) -> None:
    found = _run(tmp_path, adopt(_model(dtype=TensorProto.UINT8), None).model)
    np.testing.assert_allclose(found, _expected(IMAGES), rtol=1e-3)


def test_opsets_that_are_too_old_are_refused_in_one_line() -> None:
    with pytest.raises(UserNetworkError, match=r"opset 6; ONNX Runtime runs 7 and newer"):
        adopt(_model(opset=6), PLAIN)


def test_an_input_that_nothing_depends_on_is_left_out_and_noted() -> None:
    double = _model()
    double.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["n", 3]))
    adopted = adopt(double, PLAIN)
    assert not adopted.inputs
    assert "its outputs do not depend on more: left out" in adopted.notes


def test_a_network_that_mixes_inputs_of_a_batch_is_run_on_one_at_a_time() -> None:
    model = _model()
    mean = helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[0], keepdims=1)
    mixed = helper.make_node("Sub", ["flat", "mean"], ["centred"])
    model.graph.node[1].input[0] = "centred"
    nodes = [model.graph.node[0], mean, mixed, model.graph.node[1]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    adopted = adopt(model, PLAIN, Wishes(output_kind="logits"))
    assert adopted.one_by_one
    assert any("depends on the others" in note for note in adopted.notes)


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(UserNetworkError, match="No such file"):
        read_onnx(path, tmp_path)
    path.write_bytes(b"no model at all" * 10)
    with pytest.raises(UserNetworkError, match="cannot be read"):
        read_onnx(path, tmp_path)
    onnx.save_model(_model(), path)
    assert len(read_onnx(path, tmp_path).graph.node) == 2


def test_weights_in_files_beside_the_model_are_read_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "model.onnx"
    path.parent.mkdir()
    onnx.save_model(_model(), path, save_as_external_data=True, size_threshold=0, location="model.data")
    found = _run(tmp_path, adopt(read_onnx(path, tmp_path), PLAIN).model)
    np.testing.assert_allclose(found, _expected(IMAGES / 255), rtol=1e-3, atol=1e-3)
    (path.parent / "model.data").rename(tmp_path / "model.data")
    with pytest.raises(UserNetworkError, match=r"not in its folder$"):
        read_onnx(path, tmp_path)
    (tmp_path / "linked.onnx").symlink_to(path)
    with pytest.raises(UserNetworkError, match="cp -L"):
        read_onnx(tmp_path / "linked.onnx", tmp_path)
    for place in ("../model.data", str(tmp_path / "model.data")):
        changed = onnx.load_model(path, load_external_data=False)
        for tensor in changed.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = place
        path.write_bytes(changed.SerializeToString())
        with pytest.raises(UserNetworkError, match="only files of its own folder"):
            read_onnx(path, tmp_path)
    (path.parent / "link").symlink_to(tmp_path / "model.data")
    for tensor in changed.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "link"
    path.write_bytes(changed.SerializeToString())
    with pytest.raises(UserNetworkError, match="only files of its own folder"):
        read_onnx(path, tmp_path)


@pytest.mark.parametrize(
    ("mean", "deviation", "largest"),
    [([0.5, 0.5], [], 1.0), ([], [1.0, 1.0], 1.0), ([], [0.0], 1.0), ([], [], 0.0)],
)
def test_preprocessing_that_does_not_fit_is_refused(
    mean: list[float], deviation: list[float], largest: float
) -> None:
    with pytest.raises(ValueError, match=r"3 channels|above 0"):
        Preprocessing.for_channels(3, mean, deviation, largest)


def test_values_of_bytes_and_of_shares_mean_the_same() -> None:
    shares = Preprocessing.for_channels(1, [0.5], [0.25], 1.0)
    in_bytes = Preprocessing.for_channels(1, [127.5], [63.75], 255.0)
    assert shares.mean_bytes == in_bytes.mean_bytes
    assert shares.deviation_bytes == in_bytes.deviation_bytes


def _divides_by_the_norm() -> onnx.ModelProto:
    """A network that gives 0/0 for a black picture."""
    model = _model()
    product = next(node for node in model.graph.node if node.op_type == "MatMul")
    product.input[0] = "unit"
    norm = helper.make_node("ReduceL2", ["flat"], ["norm"], axes=[1])
    model.graph.node.insert(1, helper.make_node("Div", ["flat", "norm"], ["unit"]))
    model.graph.node.insert(1, norm)
    return model


def test_a_network_that_gives_nan_for_a_plain_picture_is_taken_and_the_picture_named() -> None:
    assert pictures_without_answer(adopt(_divides_by_the_norm(), PLAIN).model) == ("black",)
    assert pictures_without_answer(adopt(_model(), PLAIN).model) == ()


def test_a_network_that_gives_nan_for_every_picture_is_refused_for_that_reason() -> None:
    model = _model()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(np.full((144, CLASSES), np.nan, np.float32), "weight"))
    with pytest.raises(UserNetworkError, match="NaN"):
        adopt(model, PLAIN)


def test_a_network_that_would_run_or_grow_without_bound_is_refused_before_it_runs() -> None:
    endless = _model()
    endless.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "turns"))
    endless.graph.node[-1].output[0] = "once"
    endless.graph.node.append(helper.make_node("Loop", ["turns", "", "once"], ["logits"], body=doubling()))
    with pytest.raises(UserNetworkError, match="turns"):
        adopt(endless, PLAIN)
    huge = _model()
    huge.graph.initializer.append(numpy_helper.from_array(np.array([1_500_000_000]), "size"))
    huge.graph.node[-1].output[0] = "once"
    huge.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["size"], ["big"]),
            helper.make_node("ReduceMax", ["big"], ["most"], keepdims=0),
            helper.make_node("Add", ["once", "most"], ["logits"]),
        ]
    )
    with pytest.raises(UserNetworkError, match="6000000000 bytes"):
        adopt(huge, PLAIN)


@pytest.mark.parametrize("opset", [8, 9, 11, 12, 21])
def test_old_and_new_operator_sets_give_the_same_answers(tmp_path: Path, opset: int) -> None:
    model = _model(opset=opset)
    if opset < 14:
        del model.graph.node[0].attribute[:]  # `allowzero` came with opset 14
    found = _run(tmp_path, adopt(model, PLAIN).model)
    np.testing.assert_allclose(found, _expected(IMAGES / 255), rtol=1e-3, atol=1e-3)


def test_sizes_that_the_file_leaves_open_are_said_or_the_usual_ones() -> None:
    model = _model()
    for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_param = "free"
    for said in ("3x8x6", "x=3x8x6"):
        assert adopt(model, PLAIN, Wishes(input=said)).input.shape == (3, 8, 6)
    with pytest.raises(UserNetworkError, match="names 'y', but"):
        adopt(model, PLAIN, Wishes(input="y=3x8x6"))
    with pytest.raises(UserNetworkError, match=r"the file says 3x\?x\?"):
        adopt(model, PLAIN, Wishes(input="1x8x6"))
    with pytest.raises(UserNetworkError, match="ONNX Runtime cannot run"):
        adopt(model, PLAIN)  # 224 x 224, which the weights do not fit


def test_networks_of_opencv_get_blue_first_and_digits_are_inverted(tmp_path: Path) -> None:
    bgr = Preprocessing.for_channels(3, [], [], 1.0, is_bgr=True)
    found = _run(tmp_path, adopt(_model(), bgr).model)
    np.testing.assert_allclose(found, _expected(IMAGES[:, ::-1] / 255), rtol=1e-3, atol=1e-3)
    inverted = Preprocessing.for_channels(3, [], [], 1.0, is_inverted=True)
    found = _run(tmp_path, adopt(_model(), inverted).model)
    np.testing.assert_allclose(found, _expected((255 - IMAGES.astype(float)) / 255), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="three channels"):
        Preprocessing.for_channels(1, [], [], 1.0, is_bgr=True)


@pytest.mark.parametrize(
    ("dtype", "sent"),
    [
        (TensorProto.FLOAT, "float32"),
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.INT64, "int64"),
        (TensorProto.INT32, "int32"),
        (TensorProto.BOOL, "uint8"),
        (TensorProto.DOUBLE, "float32"),
    ],
)
def test_rows_of_any_type_are_inputs(dtype: int, sent: str) -> None:
    adopted = adopt(_model(sides=(48,), dtype=dtype), None)
    assert adopted.input.dtype == sent
    assert adopted.input.shape == (48,)
    assert not adopted.one_by_one


def test_texts_are_no_input() -> None:
    with pytest.raises(UserNetworkError, match="of type STRING"):
        adopt(_model(sides=(48,), dtype=TensorProto.STRING), None)


def test_of_several_outputs_the_chosen_one_is_served(tmp_path: Path) -> None:
    model = _model()
    model.graph.node.append(helper.make_node("Relu", ["flat"], ["more"]))
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["n", 144]))
    with pytest.raises(UserNetworkError, match=r"logits \?x5, more \?x144.*--output"):
        adopt(model, PLAIN)
    found = _run(tmp_path, adopt(model, PLAIN, Wishes(output="logits")).model)
    np.testing.assert_allclose(found, _expected(IMAGES / 255), rtol=1e-3, atol=1e-3)
