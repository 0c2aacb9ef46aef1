"""What all networks share: the normalisation of pixels and the scaling of widths."""

import torch
from torch import Tensor, nn

CHANNEL_MULTIPLE = 8
"""Channels come in multiples of this. Vector units prefer it, and with fewer channels torch 2.13 crashes in
the backward pass of channels-last tensors."""
_MIN_ROUNDED_SHARE = 0.9


class Pixels(nn.Module):
    """Subtract each channel's mean and divide by its standard deviation.

    This is the first step of every network and part of what is exported. The constants belong to the data
    set: they stand in the code and are not saved in checkpoints.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
        """Store mean and deviation, both in bytes (0 to 255), one value per channel."""
        super().__init__()
        self.channels = len(mean)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` with values 0 to 255 to normalised `float32[N, C, H, W]`."""
        return (images.float() - self.mean) / self.deviation


def scaled(channels: int, multiplier: float) -> int:
    """Return the multiple of 8 nearest to `channels * multiplier`, but at least 90 % of it.

    This is the rule of the MobileNet papers. A multiplier of 1 returns `channels` unchanged.
    """
    if multiplier == 1:
        return channels
    wanted = channels * multiplier
    half = CHANNEL_MULTIPLE / 2
    rounded = max(CHANNEL_MULTIPLE, int(wanted + half) // CHANNEL_MULTIPLE * CHANNEL_MULTIPLE)
    return rounded if rounded >= _MIN_ROUNDED_SHARE * wanted else rounded + CHANNEL_MULTIPLE
