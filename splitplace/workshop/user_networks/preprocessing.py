"""How the bytes of pictures become what a user's network expects. No torch needed."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Preprocessing:
    """First the bytes are scaled to 0 to `largest`, then the mean is taken off, then they are divided."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    """One value a channel."""
    largest: float = 1.0
    """What a white pixel is before the mean is taken off: 1 in most published networks, else 255."""

    @classmethod
    def for_channels(
        cls, channels: int, mean: Sequence[float], deviation: Sequence[float], largest: float
    ) -> "Preprocessing":
        """Fills in what was not given: mean 0, deviation 1; one value counts for every channel.

        Raises:
            ValueError: There are values for another number of channels, or one cannot be divided by.
        """
        means, deviations = ([*values] or [default] for values, default in ((mean, 0.0), (deviation, 1.0)))
        filled = [values * channels if len(values) == 1 else values for values in (means, deviations)]
        if any(len(values) != channels for values in filled):
            raise ValueError(
                f"mean has {len(means)} and deviation {len(deviations)} values for {channels} channels"
            )
        if min(deviations) <= 0 or largest <= 0:
            raise ValueError("deviations and the largest value must be above 0")
        return cls(tuple(filled[0]), tuple(filled[1]), largest)

    @property
    def mean_bytes(self) -> tuple[float, ...]:
        """The same as a mean of bytes, 0 to 255."""
        return tuple(value * 255 / self.largest for value in self.mean)

    @property
    def deviation_bytes(self) -> tuple[float, ...]:
        """The same as a deviation of bytes."""
        return tuple(value * 255 / self.largest for value in self.deviation)
