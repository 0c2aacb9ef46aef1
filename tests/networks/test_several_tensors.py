"""Networks with several inputs and outputs answer, whole and cut, as ONNX Runtime does on the file."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.packing.evaluation import variant_outputs
from splitplace.workshop.pieces.loaded import stage_runtime
from tests.support.commands import exit_code
from tests.support.several_tensors import SEVERAL, lstm

COUNT = 3
CLASSES = ("--labels", "labels.txt", "--accuracy", "0.5")

pytestmark = pytest.mark.usefixtures("labels")


def _added(case: str, *flags: str) -> Application:
    onnx.save_model(SEVERAL[case](), "case.onnx")
    assert exit_code("models", "add", "case.onnx", *flags, "--store", "store") == 0
    return ModelStore(Path("store")).application("case")


def _inputs(application: Application) -> dict[str, NDArray[Any]]:
    """Make some inputs as a task brings them, batch first, by their names."""
    random = np.random.default_rng(7)
    named = {tensor.name: tensor.spec for tensor in application.inputs} or {"": application.input}
    return {
        name: random.integers(0, 2 if "int64" in spec.dtype else 200, (COUNT, *spec.shape)).astype(spec.dtype)
        if "int" in spec.dtype
        else random.standard_normal((COUNT, *spec.shape)).astype(spec.dtype)
        for name, spec in named.items()
    }


def _served(application: Application, variant: str, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    load = partial(stage_runtime, ModelStore(Path("store")), application)
    found = variant_outputs(application, application.variant(variant), load, list(inputs.values()))
    return list(found)


def _of_file(feeds: list[dict[str, NDArray[Any]]]) -> list[list[NDArray[Any]]]:
    """Return what the file itself gives for each input alone."""
    session = ort.InferenceSession("case.onnx", providers=["CPUExecutionProvider"])
    return [[np.asarray(made) for made in session.run(None, feed)] for feed in feeds]


@pytest.mark.parametrize(
    ("case", "flags"),
    [
        ("two_rows", CLASSES),
        ("tokens_and_mask", (*CLASSES, "--input", "ids=12", "--input", "mask=12")),
        ("loop", CLASSES),
        ("loops_over_sizes", (*CLASSES, "--input", "5x16")),
        ("function", CLASSES),
        ("contributed", CLASSES),
        ("fixed_reshape", CLASSES),
        ("odd_names", ()),
        ("wide_types", ()),
    ],
)
def test_each_input_is_answered_as_by_the_file(case: str, flags: tuple[str, ...]) -> None:
    application = _added(case, *flags)
    inputs = _inputs(application)
    types = {value.name: value for value in onnx.load("case.onnx").graph.input}
    feeds = []
    for row in range(COUNT):
        arrays = [array[row : row + 1] for array in inputs.values()]
        feeds.append({
            name: array.astype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            for (name, value), array in zip(types.items(), arrays, strict=True)
        })  # fmt: skip
    expected = [np.concatenate(arrays) for arrays in zip(*_of_file(feeds), strict=True)]
    for variant in application.variants:
        for found, exact in zip(_served(application, variant.name, inputs), expected, strict=True):
            np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_a_picture_is_the_first_input_and_the_rest_are_arrays() -> None:
    application = _added("picture_and_numbers", *CLASSES, "--input", "picture=3x32x32")
    first, second = application.inputs
    assert (first.name, first.spec.dtype, first.spec.shape) == ("picture", "uint8", (3, 32, 32))
    assert (second.name, second.spec.dtype, second.spec.shape) == ("numbers", "float32", (5,))
    inputs = _inputs(application)
    feed = {"picture": (inputs["picture"] / 255).astype(np.float32), "numbers": inputs["numbers"]}
    ((expected,),) = _of_file([feed])
    for variant in application.variants:
        (found,) = _served(application, variant.name, inputs)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def _pictures(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return what the file reads of bytes, as mean .25 and deviation .5 make it; arrays stay as they are."""
    return {
        name: ((array / 255 - 0.25) / 0.5).astype(np.float32) if array.dtype == np.uint8 else array
        for name, array in inputs.items()
    }


@pytest.mark.parametrize(
    ("flags", "pictures"),
    [
        ((), ["left", "right"]),
        (("--picture", "left"), ["left"]),
        (("--picture", "mask", "--picture", "right"), ["mask", "right"]),
        (("--picture", "right", "--picture", "left", "--picture", "mask"), ["right", "left", "mask"]),
    ],
    ids=str,
)
def test_pictures_of_one_type_and_size_are_pictures_or_those_that_are_said(
    flags: tuple[str, ...], pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    application = _added("two_pictures", "--kind", "tensors", "--mean", "0.25", "--std", "0.5", *flags)
    told = f"pictures, all prepared alike: {', '.join(pictures)} ("
    assert (told in capsys.readouterr().out) == (len(pictures) > 1)
    bytes_ = [tensor.name for tensor in application.inputs if tensor.spec.dtype == "uint8"]
    assert application.inputs[0].name == pictures[0]
    assert sorted(bytes_) == sorted(pictures)
    inputs = _inputs(application)
    ((expected,),) = _of_file([_pictures(inputs)])
    for variant in application.variants:
        (found,) = _served(application, variant.name, inputs)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--picture", "up"), "it is none of its inputs: left, right, mask"),
        (("--picture", "left", "--arrays"), "contradict each other"),
        (("--picture", "left", "--picture", "mask", "--mean", ".1,.2,.3"), "the pictures 'mask': mean and"),
    ],
)
def test_pictures_that_are_said_and_do_not_fit_are_refused(
    flags: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save_model(SEVERAL["two_pictures"](), "case.onnx")
    assert exit_code("models", "add", "case.onnx", "--kind", "tensors", *flags, "--store", "store") != 0
    assert reason in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("case", ["lstm", "lstm_of_one"])
def test_a_state_is_recognised_and_comes_back_to_the_next_call(case: str) -> None:
    application = _added(case)
    assert [(state.input, state.output) for state in application.states] == [("h0", "hn"), ("c0", "cn")]
    assert [tensor.name for tensor in application.outputs] == ["y", "hn", "cn"]
    steps = np.random.default_rng(1).standard_normal((4, 1, 5, 6)).astype(np.float32)
    ours = [np.zeros((1, *tensor.spec.shape), np.float32) for tensor in application.inputs[1:]]
    theirs = [np.zeros((1, 1, 8), np.float32)] * 2
    for step in steps:
        ((expected, *theirs),) = _of_file([{"x": step, "h0": theirs[0], "c0": theirs[1]}])
        inputs = dict(zip(("x", "h0", "c0"), (step, *ours), strict=True))
        found, *ours = _served(application, "whole", inputs)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(ours[0]).max() > 0


def test_a_state_of_free_batch_is_run_together() -> None:
    application = _added("lstm")
    assert application.variants[0].micro_batch > 1
    inputs = _inputs(application)
    feed = {name: np.moveaxis(array, 0, 1) if name != "x" else array for name, array in inputs.items()}
    ((expected, hn, cn),) = _of_file([feed])
    found = _served(application, "whole", inputs)
    for ours, exact in zip(found, (expected, np.moveaxis(hn, 1, 0), np.moveaxis(cn, 1, 0)), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-5)


def test_what_is_called_a_batch_is_the_batch_where_another_axis_of_the_answer_is_first() -> None:
    application = _added("time_first", "--kind", "tensors", "--input", "6x5")
    assert application.input.shape == (6, 5)
    assert [tensor.spec.shape for tensor in application.outputs] == [(5, 4)]
    assert application.variants[0].micro_batch > 1
    inputs = _inputs(application)
    ((expected,),) = _of_file([{"x": inputs[""]}])
    for variant in application.variants:
        (found,) = _served(application, variant.name, inputs)
        np.testing.assert_allclose(found, np.moveaxis(expected, 1, 0), rtol=1e-4, atol=1e-5)


def test_what_is_handed_on_as_it_is_is_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SEVERAL["tokens_and_mask"]()
    model.graph.node.append(helper.make_node("Identity", ["mask"], ["mask_out"]))
    value = helper.make_tensor_value_info("mask_out", TensorProto.INT64, ["batch", "sequence"])
    model.graph.output.append(value)
    monkeypatch.setitem(SEVERAL, "mask_out", lambda: model)
    assert not _added("mask_out", "--input", "ids=12", "--input", "mask=12").states


def test_a_state_in_the_shape_of_a_picture_is_a_state() -> None:
    application = _added("cache_like_a_picture")
    assert [(state.input, state.output) for state in application.states] == [("in_cache", "out_cache")]
    assert application.pictures is None
    assert [tensor.name for tensor in application.inputs] == ["x", "in_cache"]


def test_a_state_may_be_said_where_names_do_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lstm()
    names = {"h0": "a", "c0": "b", "hn": "made", "cn": "kept"}
    for node in model.graph.node:
        for part in (node.input, node.output):
            part[:] = [names.get(name, name) for name in part]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    monkeypatch.setitem(SEVERAL, "renamed", lambda: model)
    assert not _added("renamed").states
    said = _added("renamed", "--state", "a=made", "--state", "b=kept").states
    assert [(state.input, state.output) for state in said] == [("a", "made"), ("b", "kept")]


def test_one_number_for_all_of_a_batch_is_sent_with_each_input_or_set_once() -> None:
    application = _added("gain", *CLASSES)
    assert [tensor.spec.shape for tensor in application.inputs] == [(16,), ()]
    assert application.variants[0].micro_batch == 1
    inputs = _inputs(application)
    feeds = [
        {"x": inputs["x"][row : row + 1], "gain": np.asarray(inputs["gain"][row])} for row in range(COUNT)
    ]
    expected = np.concatenate([made for (made,) in _of_file(feeds)])
    np.testing.assert_allclose(_served(application, "whole", inputs)[0], expected, rtol=1e-4, atol=1e-5)

    fixed = _added("gain", *CLASSES, "--set", "gain=2.5")
    assert not fixed.inputs
    ((expected,),) = _of_file([{"x": inputs["x"], "gain": np.array(2.5, np.float32)}])
    np.testing.assert_allclose(_served(fixed, "whole", {"x": inputs["x"]})[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("command", "case", "flags", "reason"),
    [
        (("evaluate", "case", "--data", "."), "two_rows", CLASSES, "takes float32 [16], float32 [8], so"),
        (
            ("evaluate", "case", "--data", "."),
            "function",
            CLASSES,
            "takes float32 [16], so labelled pictures",
        ),
        (("evaluate", "case", "--data", "."), "lstm", (), "answers with tensors"),
    ],
)
def test_commands_for_pictures_or_one_input_say_that_they_are(
    command: tuple[str, ...],
    case: str,
    flags: tuple[str, ...],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _added(case, *flags)
    capsys.readouterr()
    assert exit_code("models", *command, "--store", "store") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line


@pytest.mark.parametrize(("case", "flags"), [("lstm", ()), ("two_rows", CLASSES), ("gain", CLASSES)])
def test_networks_of_several_inputs_are_inspected(
    case: str, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    _added(case, *flags)
    capsys.readouterr()
    assert exit_code("models", "inspect", "case", "--store", "store") == 0
    assert "places to cut" in capsys.readouterr().out


def test_an_input_without_a_batch_is_sent_as_it_is() -> None:
    application = _added("sound_without_batch", *CLASSES)
    assert application.input.shape == (400,)
    inputs = _inputs(application)
    expected = np.concatenate([made for (made,) in _of_file([{"x": row} for row in inputs[""]])])
    np.testing.assert_allclose(_served(application, "whole", inputs)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "flags", "reason"),
    [
        (
            "tokens_and_mask",
            CLASSES,
            "sequence, after the batch): say the ones that you send, like --input ids=16 --input mask=16",
        ),
        (
            "time_first",
            ("--kind", "tensors"),
            "('x' is 6xtime, after the batch): say the ones that you send, like --input 6x16",
        ),
        ("tokens_and_mask", (*CLASSES, "--input", "tokens=12"), "'ids', 'mask'"),
        ("endless_loop", CLASSES, "no constant number of turns"),
        ("loop_over_batch", CLASSES, "no constant number of turns"),
        ("unknown_operator", CLASSES, "not a registered function"),
        ("size_of_values", ("--kind", "tensors"), "depends on the input"),
        ("lstm", ("--kind", "tensors", "--state", "x=y"), "is no input of the type of an output"),
        ("gain", (*CLASSES, "--set", "level=1"), "none of its inputs"),
        ("gain", (*CLASSES, "--set", "gain=loud"), "is no number"),
        ("tokens_and_mask", (*CLASSES, "--set", "mask=.5"), "is of type int64, which has no .5"),
        ("tokens_and_mask", (*CLASSES, "--set", "mask=inf"), "is of type int64, which has no inf"),
        ("tokens_and_mask", (*CLASSES, "--set", "mask=1e19"), "is of type int64, which has no 1e19"),
        ("gain", (*CLASSES, "--set", "gain=nan"), "which has no nan"),
        ("gain", (*CLASSES, "--state", "gain=y"), "--kind tensors does"),
        ("lstm", CLASSES, "choose one with --output"),
        (
            "picture_and_numbers",
            ("--labels", "labels.txt", "--data", ".", "--input", "picture=3x32x32"),
            "takes uint8 [3, 32, 32], float32 [5], not just a picture",
        ),
    ],
)
def test_what_cannot_be_added_says_why_in_one_line(
    case: str, flags: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save_model(SEVERAL[case](), "case.onnx")
    assert exit_code("models", "add", "case.onnx", *flags, "--store", "store") != 0
    (line,) = [text for text in capsys.readouterr().err.splitlines() if not text.startswith("case: ")]
    assert reason in line
    assert not Path("store", "case").exists()


@pytest.mark.parametrize(
    ("case", "flags", "said"),
    [
        ("loop", CLASSES, ()),
        ("contributed", CLASSES, ()),
        ("lstm", (), ()),
        ("gain", (*CLASSES, "--set", "gain=2.5"), ("--set", "gain=2.5")),
    ],
)
def test_what_was_added_is_inspected_in_the_store_and_as_a_file(
    case: str, flags: tuple[str, ...], said: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    _added(case, *flags)
    for network in (("case",), ("case.onnx", *said)):
        capsys.readouterr()
        code = exit_code("models", "inspect", *network, "--store", "store")
        shown = capsys.readouterr()
        assert code == 0, shown.err
        assert "Outputs of the chain differ from the whole's by at most" in " ".join(shown.out.split())
