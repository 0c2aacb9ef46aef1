"""A network of several outputs is added while the system runs, and its state goes on from call to call."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from splitplace.bus.settings import Settings
from splitplace.commands.submit.asking import ask
from splitplace.messages.findings import FoundTensor, FoundTensors
from splitplace.messages.task import Answer, TaskRequest, TaskTensor
from tests.support.commands import exit_code, measure_quickly
from tests.support.several_tensors import loudness, lstm
from tests.support.sounds import FLOAT as FLOAT_SAMPLES
from tests.support.sounds import wav
from tests.support.waiting import PATIENCE_S
from tests.support.whole_system import Setup, System, running_system

pytestmark = pytest.mark.system


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with running_system(tmp_path, "mosquitto", Setup(nodes=("n1", "n2"), together=True)) as started:
        yield started


def _request(step: NDArray[np.float32], state: Sequence[FoundTensor]) -> TaskRequest:
    """Return a task of one step, with the state as the answer before gave it."""
    tensors = tuple(
        TaskTensor(name=each.name, dtype=each.dtype, shape=each.shape, data=each.data) for each in state
    )
    return TaskRequest(
        inputs=step.tobytes(),
        shape=step.shape,
        dtype="float32",
        tensors=tensors or None,
        deadline_ms=40_000.0,
    )


def _answered(system: System, request: TaskRequest) -> Answer:
    settings = Settings(broker=system.broker.url)
    end_s = time.monotonic() + PATIENCE_S
    answer = asyncio.run(ask(settings, "lstm", request))
    while answer.status != "answered" and time.monotonic() < end_s:  # the splitter looks at its store
        answer = asyncio.run(ask(settings, "lstm", request))
    return answer


def test_a_sound_goes_window_by_window_through_a_network_with_state(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    measure_quickly(monkeypatch)
    monkeypatch.chdir(tmp_path)
    onnx.save_model(loudness(16), "loudness.onnx")
    assert exit_code("models", "add", "loudness.onnx", "--sound", 16000, "--store", "store") == 0
    sound = np.random.default_rng(1).uniform(-1, 1, 80).astype(np.float32)
    for number, part in enumerate((sound[:48], sound[48:])):
        Path(f"{number}.wav").write_bytes(wav(part, form=FLOAT_SAMPLES, bits=32))
    broker = ("--broker", system.broker.url, "--deadline", "40s")
    flags = ("--app", "loudness", "--state", "state.npz", "--save-tensors", "out.npz", *broker)
    end_s = time.monotonic() + PATIENCE_S
    while (code := exit_code("submit", "0.wav", *flags)) and time.monotonic() < end_s:
        assert not Path("state.npz").exists()  # the splitter looks at its store
    assert code == 0
    so_far = np.cumsum((sound.reshape(5, 16) ** 2).sum(axis=1))
    np.testing.assert_allclose(np.load("out.npz")["y"][:, 0], so_far[:3], rtol=1e-4)
    assert "3 windows" in capfd.readouterr().out
    assert exit_code("submit", "1.wav", *flags) == 0
    np.testing.assert_allclose(np.load("out.npz")["y"][:, 0], so_far[3:], rtol=1e-4)
    np.testing.assert_allclose(np.load("state.npz")["state"], [so_far[-1:]], rtol=1e-4)


def test_a_state_that_is_sent_back_goes_on_as_in_the_file(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_quickly(monkeypatch)
    file = tmp_path / "lstm.onnx"
    onnx.save_model(lstm(), file)
    assert exit_code("models", "add", file, "--store", tmp_path / "store") == 0
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    h0 = c0 = np.zeros((1, 1, 8), np.float32)
    state: Sequence[FoundTensor] = ()
    for step in np.random.default_rng(1).standard_normal((3, 1, 5, 6)).astype(np.float32):
        expected, h0, c0 = (np.asarray(made) for made in session.run(None, {"x": step, "h0": h0, "c0": c0}))
        answer = _answered(system, _request(step, state))
        assert answer.status == "answered", answer.reason
        (found,) = answer.predictions
        assert isinstance(found, FoundTensors)
        assert [tensor.name for tensor in found.tensors] == ["y", "hn", "cn"]
        result, *state = found.tensors
        np.testing.assert_allclose(np.frombuffer(result.data, np.float32), expected[0], rtol=1e-4, atol=1e-5)
