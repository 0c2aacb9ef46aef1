"""How the bytes of pictures become the input that a user's network expects. Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

_COLOURS = 3


@dataclass(frozen=True)
class Preprocessing:
    """Scale bytes to the range 0 to `largest`, subtract the mean, divide by the deviation."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    """One value per channel, as in `mean`."""
    largest: float = 1.0
    """Value of a white pixel before the mean is subtracted: 1 for most published networks, else 255."""

    is_bgr: bool = False
    """Whether the network takes blue first, as those of OpenCV and Caffe do. Mean and deviation follow its
    order."""
    is_inverted: bool = False
    """Whether black and white are exchanged first: many digits are white on black."""

    @classmethod
    def for_channels(
        cls,
        channels: int,
        mean: Sequence[float],
        deviation: Sequence[float],
        largest: float,
        *,
        is_bgr: bool = False,
        is_inverted: bool = False,
    ) -> "Preprocessing":
        """Fill in defaults (mean 0, deviation 1) and repeat single values for every channel.

        Raises:
            ValueError: The number of values differs from that of channels, or a divisor is not positive.
        """
        means, deviations = ([*values] or [default] for values, default in ((mean, 0.0), (deviation, 1.0)))
        filled = [values * channels if len(values) == 1 else values for values in (means, deviations)]
        if any(len(values) != channels for values in filled):
            raise ValueError(
                f"mean has {len(means)} and deviation {len(deviations)} values for {channels} channels"
            )
        if min(deviations) <= 0 or largest <= 0:
            raise ValueError("deviations and the largest value must be above 0")
        if is_bgr and channels != _COLOURS:
            raise ValueError(f"BGR means three channels; the network has {channels}")
        return cls(tuple(filled[0]), tuple(filled[1]), largest, is_bgr, is_inverted)

    def with_channels(self, channels: int) -> "Preprocessing":
        """Return it for pictures of another number of channels.

        Raises:
            ValueError: The channels differ in mean or deviation.
        """
        if channels == len(self.mean):
            return self
        if len({*self.mean}) > 1 or len({*self.deviation}) > 1:
            raise ValueError(f"mean and deviation are of {len(self.mean)} channels, these have {channels}")
        return replace(
            self,
            mean=self.mean[:1] * channels,
            deviation=self.deviation[:1] * channels,
            is_bgr=self.is_bgr and channels == _COLOURS,
        )

    @property
    def mean_bytes(self) -> tuple[float, ...]:
        """The mean in bytes, 0 to 255."""
        return tuple(value * 255 / self.largest for value in self.mean)

    @property
    def deviation_bytes(self) -> tuple[float, ...]:
        """The deviation in bytes."""
        return tuple(value * 255 / self.largest for value in self.deviation)
