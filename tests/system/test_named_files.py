"""Networks of two pictures and of a state are served by the commands that a user types."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image

from splitplace.commands.submit.request import read_arrays
from tests.support.commands import exit_code, measure_quickly
from tests.support.several_tensors import SEVERAL
from tests.support.waiting import PATIENCE_S
from tests.support.whole_system import Setup, System, running_system

pytestmark = [pytest.mark.system, pytest.mark.serial]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    measure_quickly(monkeypatch)
    monkeypatch.chdir(tmp_path)
    with running_system(tmp_path, "mosquitto", Setup(nodes=("n1", "n2"))) as started:
        yield started


def _added(case: str, *flags: str) -> ort.InferenceSession:
    onnx.save_model(SEVERAL[case](), f"{case}.onnx")
    assert exit_code("models", "add", f"{case}.onnx", "--kind", "tensors", *flags, "--store", "store") == 0
    return ort.InferenceSession(f"{case}.onnx", providers=["CPUExecutionProvider"])


def _submit(system: System, *arguments: str) -> None:
    """Ask until there is an answer: the splitter looks at its store from time to time."""
    end_s = time.monotonic() + PATIENCE_S
    task = ("submit", *arguments, "--deadline", "40s", "--broker", system.broker.url)
    while (code := exit_code(*task)) != 0 and time.monotonic() < end_s:
        assert code == 3
    assert code == 0


def _picture(name: str, seed: int) -> NDArray[np.float32]:
    """Write a picture, and return it as the network reads it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(name)
    return np.moveaxis((pixels / 255).astype(np.float32), -1, 0)[None]


def test_two_pictures_by_name_and_a_state_from_call_to_call_are_answered_as_by_the_file(
    system: System,
) -> None:
    session = _added("two_pictures")
    left, right = _picture("left.png", 1), _picture("right.png", 2)
    mask = np.random.default_rng(3).random((1, 1, 16, 16)).astype(np.float32)
    np.save("mask.npy", mask)
    named = ("--input", "left=left.png", "--input", "right=right.png", "--input", "mask=mask.npy")
    _submit(system, "--app", "two-pictures", *named, "--save-tensors", "y.npz", "--save", "drawn.png")
    (expected,) = session.run(None, {"left": left, "right": right, "mask": mask})
    np.testing.assert_allclose(read_arrays(Path("y.npz"))["y"], expected, rtol=1e-4, atol=1e-5)
    with Image.open("drawn.png") as drawn:
        assert drawn.width == 16

    session = _added("lstm")
    h0 = c0 = np.zeros((1, 1, 8), np.float32)
    for number, step in enumerate(np.random.default_rng(1).standard_normal((3, 1, 5, 6)).astype(np.float32)):
        np.save("step.npy", step)
        _submit(
            system, "step.npy", "--app", "lstm", "--state", "state.npz", "--save-tensors", f"{number}.npz"
        )
        expected, h0, c0 = (np.asarray(made) for made in session.run(None, {"x": step, "h0": h0, "c0": c0}))
        np.testing.assert_allclose(read_arrays(Path(f"{number}.npz"))["y"], expected, rtol=1e-4, atol=1e-5)
    assert sorted(read_arrays(Path("state.npz"))) == ["c0", "h0"]
    wrong = ("submit", "left.png", "--app", "two-pictures", "--state", "s.npz", "--broker", system.broker.url)
    assert exit_code(*wrong) == 2
    assert not Path("s.npz").exists()
