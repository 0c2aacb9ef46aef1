"""A tiny application for tests, built in milliseconds: which quadrant of a 4x4 picture is brightest?

Its three variants compute the same function exactly (also when float16 carries tensors between stages), so
every answer can be checked against `right_answers`. Stages have different output shapes, the middle stage
of the chain reverses the order of the columns, and the branches own interleaved classes: a stage that is
skipped, swapped or merged in the wrong order gives wrong answers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.application import Application, Fragment, Stage, TensorSpec, Variant
from splitplace.storage.model_store import ModelStore, sha256_of
from tests.support.kinds import kind_named

LABELS = ("top left", "top right", "bottom left", "bottom right")
BRANCH_CLASSES = ((0, 2), (1, 3))
MICRO_BATCH = 4
FLOPS_PER_IMAGE = 100.0

_REVERSE = np.eye(4, dtype=np.float32)[::-1]
_WIDEN = np.concatenate([2 * _REVERSE, _REVERSE], axis=1)
"""`[4, 8]`: twice the reversed sums, then the reversed sums once."""
_DECIDE = np.concatenate([_REVERSE, -0.25 * _REVERSE @ (1 - np.eye(4, dtype=np.float32))], axis=0)
"""`[8, 4]`: twice each sum less a quarter of the others."""


def build_tiny_application(
    root: Path,
    *,
    name: str = "tiny",
    milliseconds_per_image: float = 0.01,
    milliseconds_per_call: float = 0.05,
    peak_memory_bytes: int = 100_000,
    reference_score: float = 50.0,
    default_deadline_ms: float = 1000.0,
    padding_bytes: int = 0,
) -> Application:
    """Writes the application into the store `root` and returns it.

    Work, memory and speed in it are the nominal figures given, not measured: the whole network is given
    three times the figures of one of its parts. Each file has `padding_bytes` more than it needs.
    """
    ends = _Ends()
    sums, widen, decide = _sums(), _widen(), _decide((0, 1, 2, 3))
    models: dict[str, onnx.ModelProto] = {
        "whole": _model([*sums, *widen, *decide], ends.image, ends.columns(4)),
        "layer-0": _model(sums, ends.image, ends.sums),
        "layer-1": _model(widen, ends.sums, ends.wide),
        "layer-2": _model(decide, ends.wide, ends.columns(4)),
    }
    for branch, classes in enumerate(BRANCH_CLASSES):
        models[f"branch-{branch}"] = _model([*sums, *widen, *_decide(classes)], ends.image, ends.columns(2))
    files = {stage: _content(model, stage, padding_bytes) for stage, model in models.items()}
    image = TensorSpec(dtype="uint8", shape=(1, 4, 4))
    shapes = {"layer-0": (1, 2, 2), "layer-1": (8,), "branch-0": (2,), "branch-1": (2,)}
    sources = {"layer-1": "layer-0", "layer-2": "layer-1"}
    fragments = {
        stage: Fragment(
            sha256=sha256_of(content),
            file_bytes=len(content),
            weight_bytes=4 * (_WIDEN.size + _DECIDE.size),
            peak_memory_bytes=peak_memory_bytes * (3 if stage == "whole" else 1),
            flops_per_image=FLOPS_PER_IMAGE,
            milliseconds_per_image=milliseconds_per_image * (3 if stage == "whole" else 1),
            milliseconds_per_call=milliseconds_per_call,
            input=TensorSpec(dtype="float32", shape=shapes[sources[stage]]) if stage in sources else image,
            output=TensorSpec(dtype="float32", shape=shapes.get(stage, (4,))),
        )
        for stage, content in files.items()
    }

    def stage(name: str, classes: tuple[int, ...] = ()) -> Stage:
        return Stage(
            name=name, fragment=fragments[name].sha256, source=sources.get(name, "input"), classes=classes
        )

    def variant(name: str, *stages: Stage) -> Variant:
        return Variant(
            name=name,
            kind=kind_named(name),
            stages=stages,
            micro_batch=MICRO_BATCH,
            accuracy=1.0,
            accuracy_images=1000,
        )

    application = Application(
        name=name,
        title="Brightest quadrant of a 4x4 picture",
        input=image,
        labels=LABELS,
        default_deadline_ms=default_deadline_ms,
        reference_score=reference_score,
        variants=(
            variant("whole", stage("whole", (0, 1, 2, 3))),
            variant("layer", stage("layer-0"), stage("layer-1"), stage("layer-2", (0, 1, 2, 3))),
            variant("semantic", *(stage(f"branch-{i}", classes) for i, classes in enumerate(BRANCH_CLASSES))),
        ),
        fragments=tuple(fragments.values()),
    )
    ModelStore(root).save(application, files.values())
    return application


def tiny_images(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return pictures of shape `[count, 1, 4, 4]` with one clearly brightest quadrant, and its number."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    quadrants = random.integers(0, 150, (count, 4, 2, 2))
    quadrants[np.arange(count), labels] += 100
    pixels = quadrants.reshape(count, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(count, 1, 4, 4)
    images: NDArray[np.uint8] = pixels.astype(np.uint8)
    return images, right_answers(images).argmax(axis=1)


def right_answers(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits of shape `[N, 4]` that every variant gives, exactly."""
    sums = images.reshape(-1, 2, 2, 2, 2).sum(axis=(2, 4), dtype=np.float32).reshape(-1, 4)
    total = sums.sum(axis=1, keepdims=True)
    return np.asarray(2 * sums - 0.25 * (total - sums), dtype=np.float32)


class _Ends:
    """The values that may be a fragment's input or output."""

    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, 4, 4])
    sums = helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["batch", 1, 2, 2])
    wide = helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["batch", 8])

    @staticmethod
    def columns(count: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", count])


def _constant(name: str, value: NDArray[np.float32]) -> onnx.NodeProto:
    return helper.make_node(
        "Constant", [], [name], value=numpy_helper.from_array(np.ascontiguousarray(value))
    )


def _sums() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", ["image"], ["image_float"], to=TensorProto.FLOAT),
        _constant("ones", np.ones((1, 1, 2, 2), np.float32)),
        helper.make_node("Conv", ["image_float", "ones"], ["sums"], strides=[2, 2]),
    ]


def _widen() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Flatten", ["sums"], ["flat"]),
        _constant("widen", _WIDEN),
        helper.make_node("MatMul", ["flat", "widen"], ["widened"]),
        helper.make_node("Relu", ["widened"], ["wide"]),
    ]


def _decide(classes: tuple[int, ...]) -> list[onnx.NodeProto]:
    return [
        _constant("decide", _DECIDE[:, list(classes)]),
        helper.make_node("MatMul", ["wide", "decide"], ["logits"]),
    ]


def _model(
    nodes: list[onnx.NodeProto], source: onnx.ValueInfoProto, target: onnx.ValueInfoProto
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "tiny", [source], [target])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _content(model: onnx.ModelProto, stage: str, padding_bytes: int) -> bytes:
    if padding_bytes:
        model.doc_string = stage.ljust(padding_bytes, ".")
    content: Any = model.SerializeToString(deterministic=True)
    return bytes(content)
