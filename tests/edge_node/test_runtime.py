"""Running one fragment: what it computes and what it refuses."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from splitplace.edge_node.runtime import FragmentRuntime, load_fragment, load_stage
from splitplace.edge_node.sessions import FragmentError
from splitplace.messages.tensors import TensorSpec
from splitplace.storage.model_store import ModelStore
from tests.support.tiny_application import build_tiny_application, right_answers, tiny_images

ROOT = Path(__file__).parents[2]


@pytest.fixture
def whole(tmp_path: Path) -> FragmentRuntime:
    application = build_tiny_application(tmp_path)
    fragment = application.fragment(application.variant("whole").stages[0].fragment)
    return load_stage(application.stage_of(fragment), ModelStore(tmp_path).pieces_folder(application.name))


def _save(
    path: Path, nodes: list[onnx.NodeProto], inputs: dict[str, list[str | int | None]], outputs: list[str]
) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_it_computes_and_says_what_it_takes_and_gives(whole: FragmentRuntime) -> None:
    images, _ = tiny_images(5)
    np.testing.assert_array_equal(whole.run(images), right_answers(images))
    assert whole.input == TensorSpec(dtype="uint8", shape=(1, 4, 4))
    assert whole.output == TensorSpec(dtype="float32", shape=(4,))


def test_it_takes_read_only_arrays(whole: FragmentRuntime) -> None:
    images, _ = tiny_images(3)
    received = np.frombuffer(images.tobytes(), np.uint8).reshape(images.shape)
    assert not received.flags.writeable
    np.testing.assert_array_equal(whole.run(received), right_answers(images))


def test_several_threads_may_run_it_at_once(whole: FragmentRuntime) -> None:
    batches = [tiny_images(50, seed)[0] for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for images, logits in zip(batches, pool.map(whole.run, batches), strict=True):
            np.testing.assert_array_equal(logits, right_answers(images))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 1, 4, 4), np.float32),
        np.zeros((1, 1, 4, 5), np.uint8),
        np.zeros((1, 4, 4), np.uint8),
        np.zeros((0, 1, 4, 4), np.uint8),
        np.zeros((), np.uint8),
        np.zeros((1, 1, 4, 4), np.dtype(">u2")),
    ],
    ids=["dtype", "shape", "rank", "empty", "scalar", "byte order"],
)
def test_an_input_that_does_not_fit_is_refused(whole: FragmentRuntime, array: np.ndarray) -> None:
    with pytest.raises(FragmentError, match=r"expected uint8\[N, 1, 4, 4\]"):
        whole.run(array)


@pytest.mark.parametrize("content", [b"", b"not onnx", b"\x08\x09" * 1000])
def test_a_file_that_is_no_network_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(FragmentError, match="cannot be loaded"):
        load_fragment(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FragmentError, match="cannot be loaded"):
        load_fragment(tmp_path / "missing.onnx")


def test_two_inputs_are_a_bundle_and_no_single_array(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"])]
    path = _save(tmp_path / "two.onnx", nodes, {"a": ["batch", 2], "b": ["batch", 2]}, ["sum"])
    runtime = load_fragment(path)
    ones = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(runtime.run_bundle({"a": ones, "b": 2 * ones})["sum"], 3 * ones)
    with pytest.raises(FragmentError, match="2 inputs"):
        runtime.run(ones)


@pytest.mark.parametrize("shape", [[1, 2], ["batch", "length"]], ids=["fixed batch", "free length"])
def test_a_fixed_batch_and_a_free_other_dimension_are_refused(
    tmp_path: Path, shape: list[str | int | None]
) -> None:
    path = _save(tmp_path / "shape.onnx", [helper.make_node("Relu", ["a"], ["b"])], {"a": shape}, ["b"])
    with pytest.raises(FragmentError, match="not supported"):
        load_fragment(path)


def test_an_output_of_another_batch_size_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["a", "a"], ["b"], axis=0)]
    runtime = load_fragment(_save(tmp_path / "twice.onnx", nodes, {"a": ["batch", 2]}, ["b"]))
    with pytest.raises(FragmentError, match=r"output b is \[6, 2\], expected \[3, 2\]"):
        runtime.run(np.ones((3, 2), np.float32))


@pytest.mark.parametrize("beside", [True, False], ids=["same folder", "other folder"])
def test_weights_in_another_file_are_refused(tmp_path: Path, *, beside: bool) -> None:
    folder = tmp_path / "fragments"
    folder.mkdir()
    secret = (folder if beside else tmp_path) / "secret.bin"
    secret.write_bytes(np.ones(2, np.float32).tobytes())
    weight = TensorProto(
        name="weight", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL
    )
    location = secret.name if beside else f"../{secret.name}"
    weight.external_data.add(key="location", value=location)
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "weight"], ["b"])],
        "external",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["batch", 2])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "external.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FragmentError, match="cannot be loaded"):
        load_fragment(path)


def test_a_node_needs_neither_torch_nor_onnx() -> None:
    script = (
        "import sys, splitplace.edge_node.benchmark\n"
        "score = splitplace.edge_node.benchmark.measure_score(0.02)\n"
        "print(score > 0, {'torch', 'onnx', 'onnxscript'} & set(sys.modules))"
    )
    result = run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True set()"
