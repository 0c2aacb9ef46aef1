"""Networks of all kinds are added by the command, cut, run from their files, and answer right."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.application import Application
from splitplace.messages.findings import (
    Finding,
    FoundObjects,
    FoundRegions,
    FoundTensors,
    FoundText,
    FoundVector,
)
from splitplace.services.gateway.mapping import on_picture
from splitplace.services.gateway.pictures import decode
from splitplace.services.result_aggregator.finding import findings
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.packing.evaluation import variant_logits
from splitplace.workshop.pieces.loaded import stage_runtime
from splitplace.workshop.user_networks.source import noted_sides
from tests.support.commands import exit_code, measure_quickly
from tests.support.network_cases import CASES
from tests.support.pictures import squares
from tests.support.square_finder import SIDE, square_finder


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measure_quickly(monkeypatch)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str | Path) -> int:
    return exit_code("models", *arguments)


def added(model: onnx.ModelProto, labels: str, *flags: str) -> Application:
    onnx.save_model(model, "network.onnx")
    Path("labels.txt").write_text(labels)
    named = ("--labels", "labels.txt") if labels else ()
    assert run("add", "network.onnx", *named, *flags, "--store", "store", "--stages", "2") == 0
    return ModelStore(Path("store")).application("network")


def answered(application: Application, inputs: NDArray[Any], variant: str) -> list[Finding | None]:
    load = partial(stage_runtime, ModelStore(Path("store")), application)
    output = variant_logits(application, application.variant(variant), load, inputs)
    return list(findings({application.outputs[0].name: output}, application, len(inputs)))


@pytest.mark.parametrize("variant", ["whole", "layer"])
def test_a_detector_finds_bright_squares_in_the_pixels_of_the_photo(variant: str) -> None:
    application = added(square_finder(), "square\n", "--kind", "detection", "--fit", "pad", "--padding", "20")
    assert application.pictures is not None
    places = [(140, 80), (300, 240)]
    photo = squares(480, 360, *places, side=80)
    inputs, _, (view,) = decode((photo,), application.input, application.pictures)
    (found,) = answered(application, inputs, variant)
    assert found is not None
    mapped = on_picture(found, view, (SIDE, SIDE))
    assert isinstance(mapped, FoundObjects)
    boxes = sorted(each.box for each in mapped.objects)
    assert len(boxes) == len(places)
    for box, (left, top) in zip(boxes, places, strict=True):
        assert box == pytest.approx((left, top, left + 80, top + 80), abs=2)
    assert {each.label for each in mapped.objects} == {"square"}


def test_the_notes_of_ultralytics_make_a_detector_of_a_file_without_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = square_finder()
    helper.set_model_props(model, {"author": "Ultralytics", "task": "detect", "names": "{0: 'square'}"})
    onnx.save_model(model, "squares.onnx")
    assert run("add", "squares.onnx", "--accuracy", "0.9", "--store", "store") == 0
    said = capsys.readouterr().out
    assert "its answers are of the kind detection: the notes of Ultralytics" in said
    application = ModelStore(Path("store")).application("squares")
    assert (application.labels, application.answers.kind) == (("square",), "detection")
    assert application.pictures is not None
    assert application.pictures.fit == "pad"


def test_the_size_in_the_notes_of_ultralytics_is_taken_where_the_file_leaves_it_open(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = CASES["free_sides"]()
    notes = {
        "author": "Ultralytics",
        "task": "classify",
        "imgsz": "[32, 48]",
        "names": str(dict(enumerate("abcd"))),
    }
    helper.set_model_props(model, notes)
    assert added(model, "", "--accuracy", "0.9").input.shape == (3, 32, 48)
    assert "3x32x48 is taken, as its notes say" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["[123456]", "[123456, 32]", "[32]", "[0, 32]", "none"])
def test_notes_that_are_no_size_are_not_taken(text: str) -> None:
    model = CASES["free_sides"]()
    helper.set_model_props(model, {"imgsz": text})
    assert noted_sides(model) is None


def network(
    shape: tuple[int, ...], *nodes: onnx.NodeProto, weights: Any = (), dtype: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", dtype, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(operator: str, *names: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(names[:-1]), [names[-1]], **attributes)


@pytest.mark.parametrize("variant", ["whole", "layer"])
def test_a_segmentation_names_the_strongest_channel_of_each_pixel(variant: str) -> None:
    model = network((3, 8, 12), node("Relu", "x", "a"), node("Relu", "a", "b"), node("Relu", "b", "y"))
    application = added(model, "red\ngreen\nblue\n", "--kind", "segmentation")
    inputs = np.zeros((2, 3, 8, 12), np.uint8)
    inputs[:, 1, :, :6], inputs[:, 2, :, 6:] = 200, 200
    for found in answered(application, inputs, variant):
        assert isinstance(found, FoundRegions)
        assert [(each.label, each.share) for each in found.regions] == [("green", 0.5), ("blue", 0.5)]


@pytest.mark.parametrize("labels", ["-\na\nb\n", "a\nb\n"])
def test_a_sequence_is_read_with_the_symbols_of_its_labels(labels: str) -> None:
    nodes = (node("Relu", "x", "a"), node("Relu", "a", "b"), node("Relu", "b", "y"))
    application = added(network((5, 3), *nodes), labels, "--kind", "sequence")
    steps = np.eye(3, dtype=np.float32)[[1, 1, 0, 1, 2]][np.newaxis] * 9
    for variant in ("whole", "layer"):
        (found,) = answered(application, steps, variant)
        assert isinstance(found, FoundText)
        assert found.text == "aab"
        assert 0.9 < found.confidence < 1


@pytest.mark.parametrize("space", [" ", "\u3000"])
def test_a_space_is_a_symbol_of_a_sequence(space: str) -> None:
    nodes = (node("Relu", "x", "a"), node("Relu", "a", "y"))
    application = added(network((4, 4), *nodes), f"a\n{space}\nb\n", "--kind", "sequence")
    steps = np.eye(4, dtype=np.float32)[[1, 2, 3, 0]][np.newaxis] * 9
    (found,) = answered(application, steps, "whole")
    assert isinstance(found, FoundText)
    assert found.text == f"a{space}b"


def test_embeddings_and_tensors_need_no_labels() -> None:
    nodes = (node("Relu", "x", "a"), node("Relu", "a", "b"), node("Mul", "b", "two", "y"))
    model = network((4,), *nodes, weights=[("two", np.float32(2))])
    inputs = np.arange(8, dtype=np.float32).reshape(2, 4)
    for kind, one in (("embedding", FoundVector), ("tensors", FoundTensors)):
        application = added(model, "", "--kind", kind)
        for variant in ("whole", "layer"):
            for row, found in zip(inputs, answered(application, inputs, variant), strict=True):
                assert isinstance(found, one)
                values = (
                    found.values
                    if isinstance(found, FoundVector)
                    else np.frombuffer(found.tensors[0].data, np.float32)
                )
                np.testing.assert_allclose(values, 2 * row)


def test_several_labels_have_a_probability_each() -> None:
    nodes = (node("Relu", "x", "a"), node("Relu", "a", "b"), node("Sigmoid", "b", "y"))
    application = added(
        network((3,), *nodes), "a\nb\nc\n", "--kind", "multi-label", "--threshold", "0.7", "--accuracy", "0.5"
    )
    assert (application.answers.kind, application.scores, application.outputs) == (
        "multi-label",
        "sigmoid",
        (),
    )


@pytest.mark.parametrize(
    ("flags", "shape", "problem"),
    [
        (("--kind", "segmentation"), (4,), "no map of 3 classes"),
        (("--kind", "sequence"), (4,), "an output [4] is no sequence: [steps, symbols] is"),
        (("--kind", "sequence"), (2, 5), "among 5 symbols, but there are 3 labels"),
        (("--kind", "detection"), (4,), "takes pictures"),
        (("--kind", "horoscope"), (4,), "--kind is one of"),
        (("--kind", "tensors"), (3, 512, 512), "no room in a message: say what it gives with another --kind"),
    ],
)
def test_what_is_no_answer_of_a_kind_is_refused_in_one_line(
    flags: tuple[str, ...], shape: tuple[int, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save_model(network(shape, node("Relu", "x", "y")), "network.onnx")
    Path("labels.txt").write_text("a\nb\nc\n")
    assert run("add", "network.onnx", "--labels", "labels.txt", *flags, "--store", "store") != 0
    assert problem in capsys.readouterr().err
    assert not Path("store/network").exists()
