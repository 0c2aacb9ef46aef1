"""A sound is sent window by window, each with the state that the answer before it brought."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from splitplace.bus.settings import Settings
from splitplace.commands.submit.asking import Ask
from splitplace.commands.submit.request import SubmissionError, as_tensors
from splitplace.commands.submit.windows import ask_in_windows
from splitplace.errors import ExitCode
from splitplace.messages.application import Application
from splitplace.messages.findings import FoundTensor, FoundTensors
from splitplace.messages.limits import MAX_BATCH
from splitplace.messages.sound import SoundInput
from splitplace.messages.states import StateTensor
from splitplace.messages.task import Answer, TaskRequest
from splitplace.messages.tensors import TensorSpec
from tests.support.commands import exit_code
from tests.support.sounds import FLOAT, wav
from tests.support.tiny_application import build_tiny_application

SOUND = wav(np.arange(12, dtype=np.float32) / 16, 8000, form=FLOAT, bits=32)


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """A network of overlapping windows of four samples, and of a state."""
    return build_tiny_application(tmp_path).model_copy(
        update={
            "input": TensorSpec(dtype="float32", shape=(4,)),
            "sound": SoundInput(rate_hz=8000, hop=2),
            "states": (StateTensor(input="state", output="stateN"),),
        }
    )


class Adding:
    """Answers with the sum of a window and of the state, until it has answered often enough."""

    def __init__(self, answers: int, patch: pytest.MonkeyPatch) -> None:
        self.left = answers
        self.seen: list[TaskRequest] = []
        patch.setattr("splitplace.commands.submit.windows.asking", self.asking)

    @asynccontextmanager
    async def asking(self, settings: Settings, application: str) -> AsyncIterator[Ask]:  # noqa: ARG002
        yield self.ask

    async def ask(self, request: TaskRequest) -> Answer:
        TaskRequest.model_validate(request.model_dump())
        self.seen.append(request)
        self.left -= 1
        state = [np.frombuffer(tensor.data or b"", np.float32) for tensor in request.tensors or ()]
        total = np.frombuffer(request.inputs or b"", np.float32).sum() + sum(state, np.zeros(1, np.float32))
        made = FoundTensor(name="stateN", dtype="float32", shape=(1,), data=total.tobytes())
        return Answer(
            task="t",
            client="c",
            application="a",
            status="answered" if self.left >= 0 else "expired",
            reason="",
            predictions=(FoundTensors(tensors=(made,)),),
        )


def _sent(application: Application, request: TaskRequest, sound: bytes = SOUND) -> list[Answer]:
    async def collected() -> list[Answer]:
        return [answer async for answer in ask_in_windows(Settings(), application, request, sound)]

    return asyncio.run(collected())


def test_each_window_brings_the_state_of_the_answer_before_it(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    adding = Adding(9, monkeypatch)
    first = as_tensors({"state": np.array([[1.0]], np.float32)})
    answers = _sent(application, TaskRequest(sound=SOUND, deadline_ms=70.0, tensors=tuple(first.values())))
    sums = np.array([6, 14, 22, 30, 38]) / 16
    last = answers[-1].predictions[0]
    assert isinstance(last, FoundTensors)
    assert np.frombuffer(last.tensors[0].data, np.float32)[0] == pytest.approx(1 + sums.sum())
    assert [task.shape for task in adding.seen] == [(1, 4)] * len(sums)
    assert {task.deadline_ms for task in adding.seen} == {70.0}


def test_nothing_is_sent_after_a_window_without_answer(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    adding = Adding(2, monkeypatch)
    answers = _sent(application, TaskRequest(sound=SOUND, deadline_ms=70.0))
    assert [answer.status for answer in answers] == ["answered", "answered", "expired"]
    assert len(adding.seen) == len(answers)


def test_a_sound_may_have_more_windows_than_a_task(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    adding = Adding(MAX_BATCH + 9, monkeypatch)
    long = wav(np.zeros(2 * MAX_BATCH + 6, np.float32), 8000)
    assert len(_sent(application, TaskRequest(sound=SOUND, deadline_ms=70.0), long)) == MAX_BATCH + 2
    assert len(adding.seen) == MAX_BATCH + 2


def test_a_network_that_takes_no_sound_says_so(application: Application) -> None:
    silent = application.model_copy(update={"sound": None})
    with pytest.raises(SubmissionError, match="takes float32"):
        _sent(silent, TaskRequest(sound=SOUND, deadline_ms=70.0))


def test_what_came_before_a_window_without_answer_is_kept_and_the_state_stays(
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def known(*_: object) -> Application:
        return application

    Adding(2, monkeypatch)
    monkeypatch.setattr("splitplace.commands.submit.command.application_of", known)
    monkeypatch.chdir(tmp_path)
    Path("talk.wav").write_bytes(SOUND)
    words = ("submit", "talk.wav", "--app", "a", "--state", "s.npz", "--save-tensors", "out.npz")
    assert exit_code(*words) == ExitCode.NO_RESULT
    assert "window 2: expired" in capsys.readouterr().err
    with np.load("out.npz") as kept:
        np.testing.assert_allclose(kept["stateN"], [[6 / 16], [20 / 16]])
    assert not Path("s.npz").exists()
