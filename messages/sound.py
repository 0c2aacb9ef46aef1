"""How the sound of sensors becomes the input of a network. Pure."""

from math import prod
from typing import Annotated

from pydantic import Field

from splitplace.messages.base import Part
from splitplace.messages.tensors import DType, TensorSpec

SOUND_DTYPES: tuple[DType, ...] = ("float32", "float16", "int32", "int64")
"""Types of inputs that may be sound."""


class SoundInput(Part):
    """Preprocessing of sound: a WAV file becomes windows of samples of one channel.

    Each window is an input of the network: as many samples as that has values.
    """

    rate_hz: Annotated[int, Field(ge=1, le=1_000_000)]
    """Samples in a second."""
    hop: Annotated[int, Field(ge=1, le=1 << 30)]
    """Samples from the beginning of a window to that of the next one."""
    full_scale: Annotated[float, Field(gt=0, le=2**31)] = 1.0
    """The largest sample: 1, or 32768 for a network that takes the values of 16-bit files."""

    def problem(self, window: TensorSpec) -> str:
        """Return why an input is no window of sound; empty if it is one."""
        if window.dtype not in SOUND_DTYPES:
            return f"sound is of {', '.join(SOUND_DTYPES)}, not {window.dtype}"
        if sum(side > 1 for side in window.shape) != 1:
            return f"a window of sound has one axis of samples, not {list(window.shape)}"
        return ""

    def windows(self, samples: int, window: TensorSpec) -> int:
        """Return the number of windows of so many samples. The last one may reach beyond them."""
        beyond_first = max(0, samples - prod(window.shape))
        begun = max(1, -(-samples // self.hop))
        return min(1 + -(-beyond_first // self.hop), begun)
