"""Inception-v3 (Szegedy et al. 2015, "Rethinking the Inception architecture"), without the auxiliary head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from typing_extensions import override

from splitplace.workshop.networks.common import Classifier, Pixels, scaled

MIN_SIDE_FOR_PRINTED_STEM = 75
"""The printed stem divides the sides by eight; from this side on, that is enough for all reductions."""
POOLED_WIDTHS = (32, 64, 64)
SEVENS_WIDTHS = (128, 160, 160, 192)
DROPOUT = 0.5
_EPSILON = 1e-3

Size = int | tuple[int, int]
Scale = Callable[[int], int]


class Convolution(nn.Sequential):
    """Convolution, batch normalisation and ReLU."""

    def __init__(
        self, channels_in: int, channels_out: int, size: Size, stride: int = 1, padding: Size = 0
    ) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, size, stride, padding, bias=False),
            nn.BatchNorm2d(channels_out, eps=_EPSILON),
            nn.ReLU(inplace=True),
        )


class Concatenation(nn.Module):
    """Several branches read the same maps, and their channels are concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, features: Tensor) -> Tensor:
        """Map `float32[N, C, H, W]` to `float32[N, sum of the branches' channels, H', W']`."""
        return torch.cat([branch(features) for branch in self.branches], dim=1)


class InceptionV3(Classifier):
    """Inception-v3 from images in bytes to logits."""

    def __init__(self, outputs: int, *, pixels: Pixels, side: int = 299, width: float = 1.0) -> None:
        """Draw random weights: 23.8 million for pictures of 299 and 1000 classes.

        Args:
            outputs: Number of logits.
            pixels: Channels of the pictures, and how their values are normalised.
            side: Side of the pictures, in pixels. Below 75 the stem keeps the resolution.
            width: Multiplier for all numbers of channels.
        """
        super().__init__()

        def scale(channels: int) -> int:
            return scaled(channels, width)

        self.pixels = pixels
        self.stem = _stem(pixels.channels, scale, small=side < MIN_SIDE_FOR_PRINTED_STEM)
        channels = scale(192)
        blocks: list[nn.Module] = []
        for pooled in POOLED_WIDTHS:
            blocks.append(_with_fives(channels, scale(pooled), scale))
            channels = scale(64) + scale(64) + scale(96) + scale(pooled)
        blocks.append(_first_reduction(channels, scale))
        channels += scale(384) + scale(96)
        for inner in SEVENS_WIDTHS:
            blocks.append(_with_sevens(channels, scale(inner), scale))
            channels = 4 * scale(192)
        blocks.append(_second_reduction(channels, scale))
        channels += scale(320) + scale(192)
        for _ in range(2):
            blocks.append(_widest(channels, scale))
            channels = scale(320) + 4 * scale(384) + scale(192)
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(channels, outputs)

    @override
    def features(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` with values 0 to 255 to features `float32[N, F]`."""
        maps: Tensor = self.blocks(self.stem(self.pixels(images)))
        return maps.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` with values 0 to 255 to logits `float32[N, outputs]`."""
        logits: Tensor = self.classifier(self.dropout(self.features(images)))
        return logits


def _stem(channels: int, scale: Scale, *, small: bool) -> nn.Module:
    """Make 192 channels and divide the sides by eight; small pictures keep their sides."""
    if small:
        return nn.Sequential(
            Convolution(channels, scale(32), 3, padding=1),
            Convolution(scale(32), scale(32), 3, padding=1),
            Convolution(scale(32), scale(64), 3, padding=1),
            Convolution(scale(64), scale(80), 1),
            Convolution(scale(80), scale(192), 3, padding=1),
        )
    return nn.Sequential(
        Convolution(channels, scale(32), 3, stride=2),
        Convolution(scale(32), scale(32), 3),
        Convolution(scale(32), scale(64), 3, padding=1),
        nn.MaxPool2d(3, 2),
        Convolution(scale(64), scale(80), 1),
        Convolution(scale(80), scale(192), 3),
        nn.MaxPool2d(3, 2),
    )


def _with_fives(channels: int, pooled: int, scale: Scale) -> nn.Module:
    """Build the block of the paper's figure 5."""
    return Concatenation(
        Convolution(channels, scale(64), 1),
        nn.Sequential(Convolution(channels, scale(48), 1), Convolution(scale(48), scale(64), 5, padding=2)),
        nn.Sequential(
            Convolution(channels, scale(64), 1),
            Convolution(scale(64), scale(96), 3, padding=1),
            Convolution(scale(96), scale(96), 3, padding=1),
        ),
        nn.Sequential(nn.AvgPool2d(3, 1, padding=1), Convolution(channels, pooled, 1)),
    )


def _first_reduction(channels: int, scale: Scale) -> nn.Module:
    """Build the reduction of the paper's figure 10, which halves the sides."""
    return Concatenation(
        Convolution(channels, scale(384), 3, stride=2),
        nn.Sequential(
            Convolution(channels, scale(64), 1),
            Convolution(scale(64), scale(96), 3, padding=1),
            Convolution(scale(96), scale(96), 3, stride=2),
        ),
        nn.MaxPool2d(3, 2),
    )


def _with_sevens(channels: int, inner: int, scale: Scale) -> nn.Module:
    """Build the block of the paper's figure 6, with n = 7."""
    return Concatenation(
        Convolution(channels, scale(192), 1),
        nn.Sequential(
            Convolution(channels, inner, 1),
            Convolution(inner, inner, (1, 7), padding=(0, 3)),
            Convolution(inner, scale(192), (7, 1), padding=(3, 0)),
        ),
        nn.Sequential(
            Convolution(channels, inner, 1),
            Convolution(inner, inner, (7, 1), padding=(3, 0)),
            Convolution(inner, inner, (1, 7), padding=(0, 3)),
            Convolution(inner, inner, (7, 1), padding=(3, 0)),
            Convolution(inner, scale(192), (1, 7), padding=(0, 3)),
        ),
        nn.Sequential(nn.AvgPool2d(3, 1, padding=1), Convolution(channels, scale(192), 1)),
    )


def _second_reduction(channels: int, scale: Scale) -> nn.Module:
    """Build the second reduction, with asymmetric convolutions."""
    return Concatenation(
        nn.Sequential(Convolution(channels, scale(192), 1), Convolution(scale(192), scale(320), 3, stride=2)),
        nn.Sequential(
            Convolution(channels, scale(192), 1),
            Convolution(scale(192), scale(192), (1, 7), padding=(0, 3)),
            Convolution(scale(192), scale(192), (7, 1), padding=(3, 0)),
            Convolution(scale(192), scale(192), 3, stride=2),
        ),
        nn.MaxPool2d(3, 2),
    )


def _widest(channels: int, scale: Scale) -> nn.Module:
    """Build the block of the paper's figure 7: a 1x3 and a 3x1 convolution side by side."""

    def crossed() -> nn.Module:
        return Concatenation(
            Convolution(scale(384), scale(384), (1, 3), padding=(0, 1)),
            Convolution(scale(384), scale(384), (3, 1), padding=(1, 0)),
        )

    return Concatenation(
        Convolution(channels, scale(320), 1),
        nn.Sequential(Convolution(channels, scale(384), 1), crossed()),
        nn.Sequential(
            Convolution(channels, scale(448), 1),
            Convolution(scale(448), scale(384), 3, padding=1),
            crossed(),
        ),
        nn.Sequential(nn.AvgPool2d(3, 1, padding=1), Convolution(channels, scale(192), 1)),
    )
