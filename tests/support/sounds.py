"""WAV files, written as recorders and other programs write them."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE


def wav(
    samples: NDArray[Any],
    rate_hz: int = 16_000,
    *,
    form: int = PCM,
    bits: int = 16,
    extensible: bool = False,
    before: bytes = b"",
    claimed: int | None = None,
) -> bytes:
    """Return a WAV file of samples `[N]` or `[N, channels]` from -1 to 1.

    Args:
        samples: The sound.
        rate_hz: What its head says.
        form: Integers or floats.
        bits: Of a sample.
        extensible: Whether the head has the form of `WAVEFORMATEXTENSIBLE`.
        before: Chunks before the samples.
        claimed: Bytes of samples that the head claims; None = those that are there.
    """
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    data = _encoded(samples.reshape(-1), form, bits)
    width = channels * bits // 8
    head = struct.pack(
        "<HHIIHH", EXTENSIBLE if extensible else form, channels, rate_hz, rate_hz * width, width, bits
    )
    if extensible:
        head += struct.pack("<HHIH", 22, bits, 0, form) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    body = b"fmt " + struct.pack("<I", len(head)) + head + before
    body += b"data" + struct.pack("<I", len(data) if claimed is None else claimed) + data
    return b"RIFF" + struct.pack("<I", min(len(body) + 4, 0xFFFFFFFF)) + b"WAVE" + body


def _encoded(samples: NDArray[Any], form: int, bits: int) -> bytes:
    if form == FLOAT:
        return bytes(samples.astype(f"<f{bits // 8}").tobytes())
    if bits == 8:
        return bytes(np.rint(samples * 127 + 128).astype(np.uint8).tobytes())
    values = np.rint(samples * (2 ** (bits - 1) - 1)).astype("<i8")
    return bytes(values.view(np.uint8).reshape(-1, 8)[:, : bits // 8].tobytes())
