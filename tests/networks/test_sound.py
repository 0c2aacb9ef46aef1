"""A network of sound is added with its rate, and answers WAV files as ONNX Runtime does their samples."""

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from splitplace.bus.incoming import RawReceived, RequestProperties
from splitplace.messages.application import Application
from splitplace.messages.sound import SoundInput
from splitplace.services.gateway.intake import decode, identify, read
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.packing.evaluation import variant_outputs
from splitplace.workshop.pieces.loaded import stage_runtime
from tests.support.commands import exit_code
from tests.support.several_tensors import SEVERAL
from tests.support.sounds import FLOAT, wav

RATE_HZ, WINDOW = 16_000, 400
CLASSES = ("--labels", "labels.txt", "--accuracy", "0.5")

pytestmark = pytest.mark.usefixtures("labels")


def _add(case: str, *flags: str) -> int:
    onnx.save_model(SEVERAL[case](), "case.onnx")
    return exit_code("models", "add", "case.onnx", *CLASSES, *flags, "--store", "store")


def _added(case: str, *flags: str) -> Application:
    assert _add(case, *flags) == 0
    return ModelStore(Path("store")).application("case")


def test_a_wav_file_is_answered_as_its_windows() -> None:
    application = _added("sound_without_batch", "--sound", str(RATE_HZ), "--hop", "160", "--full-scale", "2")
    assert application.sound == SoundInput(rate_hz=RATE_HZ, hop=160, full_scale=2.0)
    sound = np.random.default_rng(3).uniform(-1, 1, WINDOW + 320).astype(np.float32)
    names = {"application": application.name, "client": "microphone", "task": "1"}
    raw = RawReceived(names, wav(sound, form=FLOAT, bits=32), RequestProperties())
    task = decode(read(raw, identify(raw)), application)
    session = ort.InferenceSession("case.onnx", providers=["CPUExecutionProvider"])
    rows = [2 * sound[start : start + WINDOW] for start in (0, 160, 320)]
    expected = np.concatenate([np.asarray(session.run(None, {"x": row})[0]) for row in rows])
    load = partial(stage_runtime, ModelStore(Path("store")), application)
    for variant in application.variants:
        (found,) = variant_outputs(application, variant, load, [task.inputs])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_without_more_flags_windows_follow_one_another() -> None:
    sound = _added("sound_without_batch", "--sound", str(RATE_HZ)).sound
    assert sound == SoundInput(rate_hz=RATE_HZ, hop=WINDOW)


@pytest.mark.parametrize(
    ("case", "flags", "reason"),
    [
        ("sound_without_batch", ("--hop", "160"), "say its rate, like --sound 16000"),
        ("sound_without_batch", ("--sound", "16000", "--full-scale", "0"), "full_scale"),
        ("fixed_reshape", ("--sound", "16000"), "one axis of samples, not [4, 6]"),
        ("picture_and_numbers", ("--sound", "16000", "--input", "picture=3x32x32"), "one axis of samples"),
        ("sound_without_batch", ("--sound", "16000", "--bgr"), "is no picture here"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(
    case: str, flags: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _add(case, *flags) != 0
    (line,) = [text for text in capsys.readouterr().err.splitlines() if not text.startswith("case: ")]
    assert reason in line
    assert not Path("store", "case").exists()
