"""WAV files become windows of samples, or are refused from their head."""

import base64
import io
import json
import struct
import wave
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitplace.bus.incoming import RawReceived, RequestProperties
from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_BATCH, MAX_TASK_BYTES
from splitplace.messages.pieces import NamedTensor
from splitplace.messages.sound import SoundInput
from splitplace.messages.states import StateTensor
from splitplace.messages.tensors import TensorSpec
from splitplace.services.gateway import sounds
from splitplace.services.gateway.intake import (
    ValidTask,
    announced_batch,
    announced_bytes,
    decode,
    identify,
    read,
)
from splitplace.services.gateway.refusals import TaskRefusedError
from tests.support.bundle_applications import app_of
from tests.support.sounds import FLOAT, PCM, wav

RATE_HZ = 16_000
WINDOW = 400
TONE: NDArray[Any] = np.sin(np.arange(WINDOW) / 7)
SCORES = NamedTensor(name="scores", spec=TensorSpec(dtype="float32", shape=(4,)))


def application(
    dtype: Any = "float32", shape: tuple[int, ...] = (WINDOW,), hop: int = WINDOW, full_scale: float = 1.0
) -> Application:
    sound = NamedTensor(name="sound", spec=TensorSpec(dtype=dtype, shape=shape))
    made = app_of((sound,), (SCORES,), outputs=(SCORES,), labels=())
    return made.model_copy(
        update={"sound": SoundInput(rate_hz=RATE_HZ, hop=hop, full_scale=full_scale), "inputs": ()}
    )


APP = application()


def message(payload: bytes, content_type: str | None = None) -> RawReceived:
    names = {"application": "app", "client": "microphone", "task": "1"}
    return RawReceived(names, payload, RequestProperties(content_type=content_type))


def sent(payload: bytes, app: Application = APP, content_type: str | None = None) -> ValidTask:
    raw = message(payload, content_type)
    submission = read(raw, identify(raw))
    valid = decode(submission, app)
    assert announced_batch(submission, app) == len(valid.inputs)
    assert announced_bytes(submission, app) == valid.inputs.nbytes
    return valid


def refusal(payload: bytes, app: Application = APP, content_type: str | None = None) -> tuple[str, str]:
    raw = message(payload, content_type)
    with pytest.raises(TaskRefusedError) as caught:
        decode(read(raw, identify(raw)), app)
    return caught.value.kind, caught.value.reason


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(
    ("form", "bits"), [(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)]
)
def test_every_usual_form_gives_the_samples(form: int, bits: int, *, extensible: bool) -> None:
    valid = sent(wav(TONE, form=form, bits=bits, extensible=extensible))
    assert (valid.inputs.dtype.name, valid.inputs.shape) == ("float32", (1, WINDOW))
    assert not valid.warnings
    np.testing.assert_allclose(valid.inputs[0], TONE, atol=2 ** (2 - min(bits, 24)))


def test_a_file_of_the_standard_library_is_read_as_it_reads_it() -> None:
    file = io.BytesIO()
    values = (30_000 * TONE).astype("<i2")
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes(values.tobytes())
    np.testing.assert_array_equal(sent(file.getvalue()).inputs[0], values.astype(np.float32) / 32768)


@pytest.mark.parametrize(
    "form", ["bare", "audio/wav", "base64", "data URL", "json", "json with a data URL", "msgpack"]
)
def test_a_sound_is_sent_bare_or_in_a_body_and_is_the_same_task(form: str) -> None:
    content = wav(TONE)
    text = base64.b64encode(content).decode()
    url = f"data:audio/wav;base64,{text}"
    payload = {
        "base64": text.encode(),
        "data URL": url.encode(),
        "json": json.dumps({"sound": text}).encode(),
        "json with a data URL": json.dumps({"sound": url}).encode(),
        "msgpack": msgpack.packb({"sound": content}),
    }.get(form, content)
    valid = sent(payload, content_type="audio/wav" if form == "audio/wav" else None)
    expected = sent(content)
    np.testing.assert_array_equal(valid.inputs, expected.inputs)
    assert valid.content == expected.content
    assert valid.content != sent(wav(TONE[::-1])).content


@pytest.mark.parametrize(
    ("samples", "hop", "starts", "silence_ms"),
    [
        (1, WINDOW, [0], 24.9375),
        (WINDOW, WINDOW, [0], 0),
        (WINDOW + 1, WINDOW, [0, WINDOW], 24.9375),
        (3 * WINDOW, WINDOW, [0, WINDOW, 2 * WINDOW], 0),
        (2 * WINDOW, 100, [0, 100, 200, 300, 400], 0),
        (WINDOW + 50, 160, [0, 160], 6.875),
        (1500, 1000, [0, 1000], 0),
        (1300, 1000, [0, 1000], 6.25),
        (900, 1000, [0], 0),
    ],
)
def test_a_sound_is_cut_into_windows_and_the_last_is_filled_up(
    samples: int, hop: int, starts: list[int], silence_ms: float
) -> None:
    sound = np.linspace(-1, 1, samples).astype(np.float32)
    valid = sent(wav(sound, form=FLOAT, bits=32), application(hop=hop))
    padded = np.concatenate([sound, np.zeros(2 * WINDOW + hop, np.float32)])
    assert len(valid.inputs) == len(starts)
    for found, start in zip(valid.inputs, starts, strict=True):
        np.testing.assert_array_equal(found, padded[start : start + WINDOW])
    told = [text for text in valid.warnings if "silence" in text]
    filled = [f"the last window was filled up with {silence_ms:g} ms of silence"]
    assert told == (filled if silence_ms else [])
    assert any("cut into" in text for text in valid.warnings) == (len(starts) > 1)


def test_several_channels_are_mixed() -> None:
    stereo = np.stack([TONE, np.zeros(WINDOW)], axis=1)
    valid = sent(wav(stereo, form=FLOAT, bits=32))
    np.testing.assert_allclose(valid.inputs[0], TONE / 2, atol=1e-6)
    assert valid.warnings == ("the sound was mixed from 2 channels to one",)


@pytest.mark.parametrize(
    ("dtype", "full_scale", "expected"),
    [("int32", 32768.0, [-32768, 0, 16384, 32767]), ("float16", 32768.0, [-32768, 0, 16384, 32768])],
)
def test_samples_have_the_type_and_scale_that_the_network_takes(
    dtype: str, full_scale: float, expected: list[float]
) -> None:
    sound = np.array([-1, 0, 0.5, 1])
    app = application(dtype, (1, 4), hop=4, full_scale=full_scale)
    valid = sent(wav(sound, form=FLOAT, bits=32), app)
    assert (valid.inputs.dtype.name, valid.inputs.tolist()) == (dtype, [[expected]])


@pytest.mark.parametrize("rate_hz", [8000, 44_100, 48_000])
def test_sound_of_another_rate_is_resampled(rate_hz: int) -> None:
    times = np.arange(rate_hz // 10) / rate_hz
    task = sent(wav(np.sin(2 * np.pi * 440 * times), rate_hz))
    assert task.inputs.shape == (4, WINDOW)
    exact = np.sin(2 * np.pi * 440 * np.arange(4 * WINDOW) / RATE_HZ)
    inner = slice(200, -200)  # a filter sees silence beyond both ends
    np.testing.assert_allclose(task.inputs.ravel()[inner], exact[inner], atol=0.01)
    assert f"the sound was resampled from {rate_hz} to {RATE_HZ} Hz" in task.warnings


def test_another_rate_is_refused_with_the_one_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "can_resample", lambda: False)
    kind, reason = refusal(wav(TONE, 44_100))
    assert kind == "bad-sound"
    assert "sound of 44100 Hz; this application takes 16000 Hz" in reason
    assert "-ar 16000" in reason


def test_what_a_streaming_recorder_leaves_open_is_what_is_there() -> None:
    np.testing.assert_array_equal(sent(wav(TONE, claimed=0xFFFFFFFF)).inputs, sent(wav(TONE)).inputs)
    np.testing.assert_array_equal(sent(wav(TONE)[:-WINDOW]).inputs[0, WINDOW // 2 :], 0)


def test_a_sound_comes_beside_other_inputs_by_name() -> None:
    rate = NamedTensor(name="rate", spec=TensorSpec(dtype="int64", shape=()))
    state = NamedTensor(name="state", spec=TensorSpec(dtype="float32", shape=(2,)))
    after = NamedTensor(name="next", spec=state.spec)
    sound = NamedTensor(name="sound", spec=APP.input)
    made = app_of(
        (sound, state, rate),
        (SCORES, after),
        outputs=(SCORES, after),
        states=(StateTensor(input="state", output="next"),),
        labels=(),
    ).model_copy(update={"sound": APP.sound})
    named = [{"name": "rate", "dtype": "int64", "shape": [1], "data": np.array([RATE_HZ]).tobytes()}]
    raw = message(msgpack.packb({"sound": wav(TONE), "tensors": named}))
    valid = decode(read(raw, identify(raw)), made)
    assert valid.inputs.shape == (1, 4 * WINDOW + 8 + 8)
    long = np.concatenate([TONE, TONE])
    kind, reason = refusal(msgpack.packb({"sound": wav(long), "tensors": named}), made)
    assert (kind, "one window a task" in reason) == ("oversized-batch", True)


EMPTY_CHUNKS = b"LIST\0\0\0\0" * 500_000
HOSTILE = {
    "a beginning": wav(TONE)[:30],
    "no samples": wav(TONE[:0]),
    "a form that is not read": wav(TONE).replace(struct.pack("<HH", PCM, 1), struct.pack("<HH", 85, 1), 1),
    "no channels": wav(TONE).replace(struct.pack("<HH", PCM, 1), struct.pack("<HH", PCM, 0), 1),
    "65535 channels": wav(TONE).replace(struct.pack("<HH", PCM, 1), struct.pack("<HH", PCM, 65535), 1),
    "another rate of 0": wav(TONE, 0),
    "half a million empty chunks": wav(TONE, before=EMPTY_CHUNKS),
    "samples before their form": b"RIFF\0\0\0\0WAVEdata\x04\0\0\0abcd",
    "NaN": wav(np.full(WINDOW, np.nan), form=FLOAT, bits=32),
    "infinity": wav(np.full(WINDOW, 1e300), form=FLOAT, bits=64),
    "another RIFF file": b"RIFF\0\0\0\0AVI fmt ",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_readable_sound_is_refused(case: str) -> None:
    kind, reason = refusal(HOSTILE[case], content_type="audio/wav")
    assert kind in {"bad-sound", "empty-batch"}
    assert "WAV" in reason or "sound" in reason


def test_a_long_sound_is_refused_before_it_is_decoded_and_overlap_does_not_expand_it() -> None:
    silence = wav(np.zeros(MAX_TASK_BYTES - 100), bits=8)
    for hop, longest in ((1, "0.1 s"), (100, "6.4 s")):
        kind, reason = refusal(silence, application(hop=hop))
        assert kind == "oversized-batch"
        assert f"the limit is {MAX_BATCH}, {longest}" in reason
    raw = message(silence)
    assert announced_batch(read(raw, identify(raw)), application(hop=1)) == MAX_BATCH


def test_an_application_without_sound_refuses_it_and_one_of_sound_refuses_pictures() -> None:
    plain = APP.model_copy(update={"sound": None})
    kind, reason = refusal(wav(TONE), plain)
    assert kind == "bad-sound"
    assert "takes float32 [400], not sound" in reason
    assert refusal(b"\x89PNG\r\n\x1a\n" + bytes(20))[0] == "bad-picture"
    both = msgpack.packb({"sound": wav(TONE), "inputs": TONE.astype(np.float32).tobytes()})
    assert refusal(both)[0] == "malformed"


@given(st.binary(max_size=80), st.integers(0, 60))
def test_noise_in_a_file_is_refused_or_gives_finite_windows(noise: bytes, at: int) -> None:
    content = wav(TONE[:40])
    raw = message(content[:at] + noise + content[at + len(noise) :], "audio/wav")
    try:
        submission = read(raw, identify(raw))
        valid = decode(submission, APP)
    except TaskRefusedError:
        return
    assert np.isfinite(valid.inputs).all()
    assert valid.inputs.shape == (announced_batch(submission, APP), WINDOW)
