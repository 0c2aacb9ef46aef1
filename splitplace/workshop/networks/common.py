"""What all networks share: their form, the normalisation of pixels, the scaling of widths."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

Stem = Literal["full", "halving", "quartering"]
"""How the first layers reduce the sides of the pictures: not at all, to a half, or to a quarter, as printed
for pictures of 224. A residual network's are 3x3 with stride 1 or 2, or 7x7 with stride 2 and pooling."""

CHANNEL_MULTIPLE = 8
"""Channels come in multiples of this. Vector units prefer it, and with fewer channels torch 2.13 crashes in
the backward pass of channels-last tensors."""
_MIN_ROUNDED_SHARE = 0.9


class Classifier(nn.Module, ABC):
    """A network from images in bytes to logits: normalised pixels, features, a linear layer."""

    pixels: "Pixels"
    classifier: nn.Linear

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` with values 0 to 255 to features `float32[N, F]`."""


class Pixels(nn.Module):
    """Subtract each channel's mean, divide by its standard deviation, and enlarge the pictures if asked to.

    This is the first step of every network and part of what is exported. The constants belong to the data
    set: they stand in the code and are not saved in checkpoints.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: tuple[float, ...], deviation: tuple[float, ...], zoom: float = 1.0) -> None:
        """Store mean and deviation, both in bytes (0 to 255), one value per channel.

        Pictures of H x W pixels become `zoom` times as high and as wide, by bilinear interpolation.
        """
        super().__init__()
        self.channels = len(mean)
        self.zoom = zoom
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]`, 0 to 255, to normalised `float32[N, C, zoom H, zoom W]`."""
        normalised: Tensor = (images.float() - self.mean) / self.deviation
        if self.zoom == 1:
            return normalised
        size = [round(side * self.zoom) for side in images.shape[2:]]
        return nn.functional.interpolate(normalised, size, mode="bilinear", align_corners=False)


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
