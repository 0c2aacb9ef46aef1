"""A tiny application for tests, built in milliseconds: which quadrant of a 4x4 picture is brightest?

Its three variants compute the same function exactly (also when float16 carries tensors between stages), so
every answer can be checked against `right_answers`. Stages have different output shapes, the middle stage
of the chain reverses the order of the columns, and the branches own interleaved classes: a stage that is
skipped, swapped or merged in the wrong order gives wrong answers.

`whole` and `layer` are runs of one chain of three pieces. The branches have chains of their own, which share
its first two pieces. The first piece has no weights file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.application import Application, Fragment, Stage, Variant
from splitplace.messages.limits import SMALL_WEIGHT_BYTES
from splitplace.messages.pieces import NamedChain
from splitplace.messages.tensors import TensorSpec
from splitplace.storage.model_store import ModelStore
from tests.support.chains import contents, cut_at, named, run_of
from tests.support.kinds import kind_named

LABELS = ("top left", "top right", "bottom left", "bottom right")
BRANCH_CLASSES = ((0, 2), (1, 3))
STAGES = ("whole", "layer-0", "layer-1", "layer-2", "branch-0", "branch-1")
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
    weight_bytes: int = 4 * (_WIDEN.size + _DECIDE.size),
    most_stages: int | None = None,
) -> Application:
    """Writes the application into the store `root` and returns it.

    Work, memory and speed in it are the nominal figures given, not measured: the whole network is given
    three times the figures of one of its parts. The files of each fragment have at least `padding_bytes` more
    than they need.

    Args:
        root: Folder of the store.
        name: Name of the application.
        milliseconds_per_image: Time of a part.
        milliseconds_per_call: Fixed time of a call of any fragment.
        peak_memory_bytes: Memory of a part.
        reference_score: Score of the device on which these times hold.
        default_deadline_ms: Deadline of tasks without one.
        padding_bytes: Bytes that no node reads, in the files of each fragment.
        weight_bytes: Weights of each fragment, as described: nodes prepare those from 1 MiB up.
        most_stages: Of `layer`, whose pieces may then be grouped anew.
    """
    image = TensorSpec(dtype="uint8", shape=(1, 4, 4))
    nominal = {
        "weight_bytes": weight_bytes,
        "flops_per_image": FLOPS_PER_IMAGE,
        "milliseconds_per_call": milliseconds_per_call,
    }
    times = {"whole": 3}
    figures = {
        stage: {
            **nominal,
            "peak_memory_bytes": peak_memory_bytes * times.get(stage, 1),
            "milliseconds_per_image": milliseconds_per_image * times.get(stage, 1),
        }
        for stage in STAGES
    }
    fragments, chains, files = _cut(figures, padding_bytes)
    sources = {"layer-1": "layer-0", "layer-2": "layer-1"}

    def stage(name: str, classes: tuple[int, ...] = ()) -> Stage:
        return Stage(
            name=name, fragment=fragments[name].sha256, source=sources.get(name, "input"), classes=classes
        )

    def variant(name: str, *stages: Stage, most_stages: int | None = None) -> Variant:
        return Variant(
            most_stages=most_stages,
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
            variant(
                "layer",
                stage("layer-0"),
                stage("layer-1"),
                stage("layer-2", (0, 1, 2, 3)),
                most_stages=most_stages,
            ),
            variant("semantic", *(stage(f"branch-{i}", classes) for i, classes in enumerate(BRANCH_CLASSES))),
        ),
        fragments=tuple(fragments.values()),
        chains=chains,
    )
    ModelStore(root).save(application, files)
    return application


_Made = tuple[dict[str, Fragment], tuple[NamedChain, ...], list[bytes]]
"""Fragments by the names of their stages, their chains, and the content of their files."""


def _cut(figures: Mapping[str, Mapping[str, Any]], padding_bytes: int) -> _Made:
    padding = max(padding_bytes, SMALL_WEIGHT_BYTES)
    cuts = {
        name: cut_at(
            model,
            "sums",
            "wide",
            ballast={1: _filled("widen", padding), 2: _filled(name, padding)}
            | ({0: _filled("sums", padding)} if padding_bytes else {}),
        )
        for name, model in _whole_models().items()
    }
    chains = {name: named(name, cut) for name, cut in cuts.items()}
    fragments = {name: run_of(chain, **figures[name]) for name, chain in chains.items()}
    for index in range(3):
        layer = f"layer-{index}"
        fragments[layer] = run_of(chains["whole"], index, index + 1, **figures[layer])
    return {name: fragments[name] for name in STAGES}, tuple(chains.values()), contents(*cuts.values())


def _filled(name: str, size: int) -> bytes:
    """Return some content of this size, another one for each name."""
    return name.encode().ljust(size, b".")


def _whole_models() -> dict[str, onnx.ModelProto]:
    """Return the networks that read a picture and decide: the whole one and the branches."""
    ends = _Ends()
    models = {"whole": _model([*_sums(), *_widen(), *_decide((0, 1, 2, 3))], ends.image, ends.columns(4))}
    for branch, classes in enumerate(BRANCH_CLASSES):
        nodes = [*_sums(), *_widen(), *_decide(classes)]
        models[f"branch-{branch}"] = _model(nodes, ends.image, ends.columns(2))
    return models


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
