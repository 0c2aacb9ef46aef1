"""Read the sound of a task: a WAV file becomes the windows of samples that a network takes. Pure.

The head alone says what decoding will cost. It is read here because `wave` of Python 3.11 takes neither
floats nor the extensible form that recorders write, and walks over millions of empty chunks.
"""

import struct
from collections.abc import Iterator
from importlib.util import find_spec
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from splitplace.messages.limits import MAX_BATCH, MAX_TASK_INPUT_BYTES
from splitplace.messages.sound import SoundInput
from splitplace.messages.tensors import TensorSpec
from splitplace.services.gateway.refusals import refuse

MAX_CHUNKS = 64
"""Most chunks of a file that are looked at."""
MAX_CHANNELS = 64
MAX_RATE_HZ = 1_000_000

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_RIFF = struct.Struct("<4sI4s")
_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
"""Form, channels, rate, bytes a second, bytes of all channels of a sample, bits."""
_TRUE_FORM_AT = 24
"""Where the extensible form says whether samples are integers or floats."""
_TYPES = {
    (_PCM, 8): "u1",
    (_PCM, 16): "<i2",
    (_PCM, 24): "u1",
    (_PCM, 32): "<i4",
    (_FLOAT, 32): "<f4",
    (_FLOAT, 64): "<f8",
}
_ONE_BYTE, _THREE_BYTES = 8, 24
"""Bits of samples that numpy's integers do not hold as they are."""


class Head(NamedTuple):
    """What a WAV file says of its samples."""

    rate_hz: int
    channels: int
    form: int
    bits: int
    start: int
    """Where its samples begin in the file."""
    samples: int
    """Number of samples of a channel that the file holds."""


class Sounds(NamedTuple):
    """A decoded sound."""

    inputs: NDArray[Any]
    """Shape [windows, *shape of a window]."""
    warnings: tuple[str, ...]
    """What was done to it."""


def is_sound(payload: bytes) -> bool:
    """Whether bytes look like a WAV file."""
    return payload[:4] == b"RIFF" and payload[8:12] == b"WAVE"


def head_of(content: bytes) -> Head:
    """Read the head of a WAV file.

    Raises:
        TaskRefusedError: It is none, or its samples are of a form that is not read.
    """
    if not is_sound(content):
        refuse("bad-sound", "the sound is no WAV file")
    form: tuple[int, ...] | None = None
    for name, start, size in _chunks(content):
        if name == b"fmt " and size >= _FORMAT.size:
            form = _FORMAT.unpack_from(content, start)
            if form[0] == _EXTENSIBLE and size >= _TRUE_FORM_AT + 2:
                form = (*struct.unpack_from("<H", content, start + _TRUE_FORM_AT), *form[1:])
        elif name == b"data" and form is not None:
            kind, channels, rate_hz, _, _, bits = form
            if (kind, bits) not in _TYPES:
                refuse(
                    "bad-sound",
                    f"a WAV file of form {kind} with {bits} bits; read are PCM of 8, 16, 24 or 32 bits, and "
                    "floats of 32 or 64",
                )
            if not 1 <= channels <= MAX_CHANNELS:
                refuse("bad-sound", f"a WAV file of {channels} channels; 1 to {MAX_CHANNELS} are read")
            if not 1 <= rate_hz <= MAX_RATE_HZ:
                refuse("bad-sound", f"a WAV file of {rate_hz} Hz; 1 to {MAX_RATE_HZ} are read")
            return Head(rate_hz, channels, kind, bits, start, size // (channels * bits // 8))
    return refuse("bad-sound", "a WAV file without format or samples")


def decode(content: bytes, window: TensorSpec, how: SoundInput | None, *, is_one_task: bool = True) -> Sounds:
    """Decode a WAV file to inputs [windows, *window.shape].

    Args:
        content: The file.
        window: What the application takes.
        how: How sound is cut into it; None = it takes no sound.
        is_one_task: Whether all windows must fit into a task.

    Raises:
        TaskRefusedError: It is not readable, too long, or of another rate where nothing resamples it.
    """
    if how is None:
        refuse("bad-sound", f"this application takes {window.dtype} {list(window.shape)}, not sound")
    head = head_of(content)
    if head.rate_hz != how.rate_hz and not can_resample():
        refuse(
            "bad-sound",
            f"sound of {head.rate_hz} Hz; this application takes {how.rate_hz} Hz (ffmpeg -i IN "
            f"-ar {how.rate_hz} -ac 1 OUT.wav converts it; the gateway does with the extra `sound`)",
        )
    if not head.samples:
        refuse("empty-batch", "a sound without samples")
    count, length = windows_of(head, window, how), prod(window.shape)
    most = min(MAX_BATCH, MAX_TASK_INPUT_BYTES // window.bytes_per_image)
    if is_one_task and count > most:
        longest_s = (length + (most - 1) * how.hop) / how.rate_hz
        refuse("oversized-batch", f"a sound of {count} windows; the limit is {most}, {longest_s:.1f} s")
    covered = length + (count - 1) * how.hop
    samples = np.zeros(covered, np.float32)
    made = _mono(content, head)
    if not np.isfinite(made).all():
        refuse("bad-sound", "the sound holds NaN, infinity or values without measure")
    made = _at_rate(made, head.rate_hz, how.rate_hz)[:covered]
    samples[: len(made)] = made
    windows = sliding_window_view(samples, length)[:: how.hop] * np.float32(how.full_scale)
    if np.dtype(window.dtype).kind == "i":
        bounds = np.iinfo(window.dtype)
        windows = np.clip(np.rint(windows), bounds.min, min(how.full_scale - 1, bounds.max))
    inputs = windows.astype(window.dtype).reshape(count, *window.shape)
    return Sounds(inputs, tuple(_done(head, how, count, length)))


def windows_of(head: Head, window: TensorSpec, how: SoundInput) -> int:
    """Return the number of windows of a sound."""
    return how.windows(_length(head, how), window)


def can_resample() -> bool:
    """Whether sound of another rate is taken: an extra brings what resamples it."""
    return find_spec("soxr") is not None


def _length(head: Head, how: SoundInput) -> int:
    """Return the number of samples of a channel at the rate that is wanted."""
    return -(-head.samples * how.rate_hz // head.rate_hz)


def _at_rate(samples: NDArray[np.float32], rate_hz: int, wanted_hz: int) -> NDArray[np.float32]:
    if rate_hz == wanted_hz:
        return samples
    import soxr  # noqa: PLC0415 - an extra

    return np.asarray(soxr.resample(samples, rate_hz, wanted_hz), np.float32)


def _done(head: Head, how: SoundInput, count: int, length: int) -> Iterator[str]:
    """Yield what was done to a sound, for its sender."""
    if head.rate_hz != how.rate_hz:
        yield f"the sound was resampled from {head.rate_hz} to {how.rate_hz} Hz"
    if head.channels > 1:
        yield f"the sound was mixed from {head.channels} channels to one"
    if count > 1:
        size, step = (f"{1000 * samples / how.rate_hz:g} ms" for samples in (length, how.hop))
        yield f"the sound was cut into {count} windows of {size}, one every {step}"
    missing = length + (count - 1) * how.hop - _length(head, how)
    if missing > 0:
        yield f"the last window was filled up with {1000 * missing / how.rate_hz:g} ms of silence"


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, place and size of chunks. A size beyond the end, as of a stream, is what is there."""
    at = _RIFF.size
    for _ in range(MAX_CHUNKS):
        if at + _CHUNK.size > len(content):
            return
        name, size = _CHUNK.unpack_from(content, at)
        at += _CHUNK.size
        yield name, at, min(size, len(content) - at)
        at += size + size % 2


def _mono(content: bytes, head: Head) -> NDArray[np.float32]:
    """Return the mean of all channels, from -1 to 1."""
    values = head.samples * head.channels
    kind = _TYPES[head.form, head.bits]
    if head.bits == _THREE_BYTES:
        wide = np.zeros((values, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, kind, 3 * values, head.start).reshape(values, 3)
        raw: NDArray[Any] = wide.view("<i4")[:, 0]
    else:
        raw = np.frombuffer(content, kind, values, head.start)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite then is refused
        floats: NDArray[Any] = raw.astype(np.float32)
    if head.bits == _ONE_BYTE:
        floats = (floats - 128) / 128
    elif head.form == _PCM:
        floats /= 2 ** (31 if head.bits == _THREE_BYTES else head.bits - 1)
    return np.asarray(floats.reshape(head.samples, head.channels).mean(axis=1), np.float32)
