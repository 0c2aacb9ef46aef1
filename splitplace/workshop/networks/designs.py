"""Designs: how the networks of a recipe are built, whatever their family."""

from dataclasses import dataclass
from typing import Protocol

from splitplace.workshop.networks.common import Classifier, Pixels, Stem
from splitplace.workshop.networks.inception_v3 import InceptionV3
from splitplace.workshop.networks.mobilenet_v2 import MobileNetV2
from splitplace.workshop.networks.resnet_v2 import (
    PreActivationBlock,
    PreActivationBottleneck,
    ResNetV2,
)


class Design(Protocol):
    """Family and size of a network. Its text is a line of the training report."""

    def build(self, outputs: int, pixels: Pixels, side: int) -> Classifier:
        """Draw random weights.

        Args:
            outputs: Number of logits.
            pixels: Channels of the pictures, and how their values are normalised.
            side: Side of the pictures after `pixels`.
        """


@dataclass(frozen=True)
class ResNet:
    """Pre-activation residual networks."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    stem: Stem = "full"
    bottlenecks: bool = False
    """Whether blocks are bottlenecks, as in ResNet50; else pairs of 3x3 convolutions."""

    def build(self, outputs: int, pixels: Pixels, side: int) -> ResNetV2:  # noqa: ARG002 - the stem is given
        """See `Design`."""
        block = PreActivationBottleneck if self.bottlenecks else PreActivationBlock
        return ResNetV2(
            outputs, widths=self.widths, blocks=self.blocks, pixels=pixels, stem=self.stem, block=block
        )

    def __str__(self) -> str:
        kind = " of bottlenecks" if self.bottlenecks else ""
        return f"pre-activation residual network{kind}, widths {self.widths}, blocks {self.blocks}"


@dataclass(frozen=True)
class MobileNet:
    """MobileNetV2 with all widths multiplied by a number."""

    width: float = 1.0
    stem: Stem | None = None
    """None = by the side of the pictures."""

    def build(self, outputs: int, pixels: Pixels, side: int) -> Classifier:
        """See `Design`."""
        return MobileNetV2(outputs, pixels=pixels, side=side, width=self.width, stem=self.stem)

    def __str__(self) -> str:
        return f"MobileNetV2 of {self.width:g} times its published widths"


@dataclass(frozen=True)
class Inception:
    """InceptionV3 with all widths multiplied by a number."""

    width: float = 1.0

    def build(self, outputs: int, pixels: Pixels, side: int) -> Classifier:
        """See `Design`."""
        return InceptionV3(outputs, pixels=pixels, side=side, width=self.width)

    def __str__(self) -> str:
        return f"InceptionV3 of {self.width:g} times its published widths"
