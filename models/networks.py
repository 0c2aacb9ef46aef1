"""A small residual network of the second kind (pre-activation: He et al. 2016, "Identity mappings")."""

from itertools import pairwise

import torch
from torch import Tensor, nn

PIXEL_MEAN = 33.3
PIXEL_STD = 78.6
"""Mean and standard deviation of MNIST's training pixels (0 to 255)."""


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and ReLU, around which the input is carried."""

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
        """`float32[N, channels_in, H, W]` to `float32[N, channels_out, H / stride, W / stride]`."""
        activated = torch.relu(self.norm1(features))
        carried = features if self.shortcut is None else self.shortcut(activated)
        inner = self.conv1(activated)
        output: Tensor = carried + self.conv2(torch.relu(self.norm2(inner)))
        return output


class ResidualNetwork(nn.Module):
    """Images in bytes to logits. The normalisation of pixels is part of the network, so of what is exported.

    The first convolution halves the picture, and so does each further group of blocks.
    """

    LEAST_WIDTH = 8
    """With fewer channels torch 2.13 crashes in the backward pass of tensors that lie channels-last."""

    def __init__(self, widths: tuple[int, ...], blocks_per_width: int, outputs: int) -> None:
        super().__init__()
        if min(widths) < self.LEAST_WIDTH:
            msg = f"widths are {widths}, each must be at least {self.LEAST_WIDTH}"
            raise ValueError(msg)
        self.stem = nn.Conv2d(1, widths[0], 3, stride=2, padding=1, bias=False)
        blocks = []
        for group, (before, width) in enumerate(pairwise((widths[0], *widths))):
            for index in range(blocks_per_width):
                first = index == 0
                stride = 2 if first and group > 0 else 1
                blocks.append(PreActivationBlock(before if first else width, width, stride))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.classifier = nn.Linear(widths[-1], outputs)

    def features(self, images: Tensor) -> Tensor:
        """`uint8` or `float32[N, 1, 28, 28]` of values 0 to 255 to `float32[N, widths[-1]]`."""
        pixels = (images.float() - PIXEL_MEAN) / PIXEL_STD
        maps = torch.relu(self.norm(self.blocks(self.stem(pixels))))
        return maps.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """`uint8` or `float32[N, 1, 28, 28]` of values 0 to 255 to logits `float32[N, outputs]`."""
        logits: Tensor = self.classifier(self.features(images))
        return logits
