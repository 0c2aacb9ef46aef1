"""What the user says of sound."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from pydantic import ValidationError

from splitplace.commands.shared.options import explain
from splitplace.errors import ConfigurationError
from splitplace.messages.sound import SoundInput
from splitplace.workshop.user_networks.from_onnx import Adopted
from splitplace.workshop.user_networks.reading import UserNetworkError

SIXTEEN_BITS = 32768.0
"""The largest sample of a 16-bit file."""


@dataclass(frozen=True)
class SoundFlags:
    """Flags about sound; None = not said."""

    rate_hz: int | None = None
    hop: int | None = None
    full_scale: float | None = None

    def check(self, *, is_file: bool) -> None:
        """Raise ConfigurationError where they say nothing, or of a network that takes pictures."""
        if self.rate_hz is None and (self.hop is not None or self.full_scale is not None):
            raise ConfigurationError("--hop and --full-scale are of sound: say its rate, like --sound 16000")
        if self.rate_hz is not None and not is_file:
            raise ConfigurationError("--sound is for FILE.onnx: export the network to ONNX first")

    def added_to(self, network: Adopted) -> Adopted:
        """Return a network whose first input is sound, where they say so.

        Raises:
            UserNetworkError: That input is no window of samples.
        """
        if self.rate_hz is None:
            return network
        window = network.input
        length = prod(window.shape)
        usual_scale = SIXTEEN_BITS if np.dtype(window.dtype).kind == "i" else 1.0
        try:
            sound = SoundInput(
                rate_hz=self.rate_hz,
                hop=length if self.hop is None else self.hop,
                full_scale=usual_scale if self.full_scale is None else self.full_scale,
            )
        except ValidationError as error:
            raise UserNetworkError(f"not a sound: {explain(error)}") from error
        if problem := sound.problem(window):
            raise UserNetworkError(f"--sound: {problem}")
        note = (
            f"sound: {sound.rate_hz} Hz, one channel, windows of {length} samples "
            f"({1000 * length / sound.rate_hz:g} ms), one every {sound.hop}, up to {sound.full_scale:g}"
        )
        return replace(network, sound=sound, notes=(note, *network.notes))
