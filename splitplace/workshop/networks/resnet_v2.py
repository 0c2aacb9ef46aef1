"""Pre-activation residual networks, ResNet-v2 (He et al. 2016, "Identity mappings").

Numbers of blocks and channels are those printed in He et al. 2015, "Deep residual learning".
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from typing_extensions import override

from splitplace.workshop.networks.common import CHANNEL_MULTIPLE, Classifier, Pixels, Stem, scaled

LARGEST_SMALL_SIDE = 64
LARGEST_MEDIUM_SIDE = 128
"""Largest sides for the stems `full` and `halving`; they leave maps of about 32 to 64 pixels a side."""
PRINTED_WIDTHS = (64, 128, 256, 512)
PRINTED_BLOCKS = (3, 4, 6, 3)


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and ReLU, with a residual connection around them."""

    expansion = 1

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map `float32[N, channels_in, H, W]` to `float32[N, channels_out, H / stride, W / stride]`."""
        activated = torch.relu(self.norm1(features))
        carried = features if self.shortcut is None else self.shortcut(activated)
        inner = self.conv1(activated)
        output: Tensor = carried + self.conv2(torch.relu(self.norm2(inner)))
        return output


class PreActivationBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each after normalisation and ReLU, with a residual connection."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        channels_out = channels * self.expansion
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels_out, 1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map `float32[N, channels_in, H, W]` to `float32[N, 4 * channels, H / stride, W / stride]`."""
        activated = torch.relu(self.norm1(features))
        carried = features if self.shortcut is None else self.shortcut(activated)
        inner = self.conv2(torch.relu(self.norm2(self.conv1(activated))))
        output: Tensor = carried + self.conv3(torch.relu(self.norm3(inner)))
        return output


class ResNetV2(Classifier):
    """ResNet-v2 from images in bytes to logits. The normalisation of pixels is part of the network.

    Every group of blocks except the first halves the sides of the maps.
    """

    def __init__(
        self,
        outputs: int,
        *,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        pixels: Pixels,
        stem: Stem = "full",
        block: type[PreActivationBlock | PreActivationBottleneck] = PreActivationBlock,
    ) -> None:
        """Draw random weights.

        Args:
            outputs: Number of logits.
            widths: Channels of each group of blocks; bottlenecks output four times as many.
            blocks: Number of blocks in each group.
            pixels: Channels of the pictures, and how their values are normalised.
            stem: How the stem reduces the sides of the picture.
            block: Kind of block.

        Raises:
            ValueError: Widths and blocks differ in length, or a width is too small to train.
        """
        super().__init__()
        if min(widths) < CHANNEL_MULTIPLE or len(widths) != len(blocks):
            raise ValueError(
                f"widths are {widths} for {len(blocks)} groups; each must be at least {CHANNEL_MULTIPLE}"
            )
        self.pixels = pixels
        self.stem = _stem(pixels.channels, widths[0], stem)
        made: list[nn.Module] = []
        outs = [width * block.expansion for width in widths]
        for group, (before, after) in enumerate(pairwise((widths[0], *outs))):
            for index in range(blocks[group]):
                first = index == 0
                stride = 2 if first and group > 0 else 1
                made.append(block(before if first else after, widths[group], stride))
        self.blocks = nn.Sequential(*made)
        self.norm = nn.BatchNorm2d(outs[-1])
        self.classifier = nn.Linear(outs[-1], outputs)

    @override
    def features(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` with values 0 to 255 to features `float32[N, F]`."""
        maps = torch.relu(self.norm(self.blocks(self.stem(self.pixels(images)))))
        return maps.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` with values 0 to 255 to logits `float32[N, outputs]`."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


def resnet34_v2(outputs: int, *, pixels: Pixels, side: int = 224, width: float = 1.0) -> ResNetV2:
    """Build ResNet-34-v2: pairs of 3x3 convolutions, 21.8 million weights for 1000 classes.

    Args:
        outputs: Number of logits.
        pixels: Channels of the pictures, and how their values are normalised.
        side: Side of the pictures, in pixels; decides the stem.
        width: Multiplier for all numbers of channels.
    """
    return _printed(outputs, pixels, side, width, PreActivationBlock)


def resnet50_v2(outputs: int, *, pixels: Pixels, side: int = 224, width: float = 1.0) -> ResNetV2:
    """Build ResNet-50-v2: bottlenecks, 25.5 million weights for 1000 classes.

    Args:
        outputs: Number of logits.
        pixels: Channels of the pictures, and how their values are normalised.
        side: Side of the pictures, in pixels; decides the stem.
        width: Multiplier for all numbers of channels.
    """
    return _printed(outputs, pixels, side, width, PreActivationBottleneck)


def _printed(
    outputs: int,
    pixels: Pixels,
    side: int,
    width: float,
    block: type[PreActivationBlock | PreActivationBottleneck],
) -> ResNetV2:
    widths = tuple(scaled(channels, width) for channels in PRINTED_WIDTHS)
    return ResNetV2(
        outputs, widths=widths, blocks=PRINTED_BLOCKS, pixels=pixels, stem=stem_for(side), block=block
    )


def stem_for(side: int) -> Stem:
    """Return the stem that leaves maps of about 32 to 64 pixels a side."""
    if side <= LARGEST_SMALL_SIDE:
        return "full"
    return "halving" if side <= LARGEST_MEDIUM_SIDE else "quartering"


def _stem(channels: int, width: int, kind: Stem) -> nn.Module:
    if kind == "quartering":
        return nn.Sequential(
            nn.Conv2d(channels, width, 7, 2, padding=3, bias=False), nn.MaxPool2d(3, 2, padding=1)
        )
    return nn.Conv2d(channels, width, 3, stride=2 if kind == "halving" else 1, padding=1, bias=False)
