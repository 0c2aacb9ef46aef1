"""Designs: how the networks of a recipe are built, whatever their family."""

from dataclasses import dataclass
from typing import Protocol

from splitplace.workshop.networks.common import Classifier, Pixels
from splitplace.workshop.networks.inception_v3 import InceptionV3
from splitplace.workshop.networks.mobilenet_v2 import MobileNetV2
from splitplace.workshop.networks.resnet_v2 import (
    PreActivationBlock,
    PreActivationBottleneck,
    ResNetV2,
    Stem,
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
class Scaled:
    """Published networks whose widths are all multiplied by a number."""

    family: type[MobileNetV2 | InceptionV3]
    width: float = 1.0

    def build(self, outputs: int, pixels: Pixels, side: int) -> Classifier:
        """See `Design`."""
        return self.family(outputs, pixels=pixels, side=side, width=self.width)

    def __str__(self) -> str:
        return f"{self.family.__name__} of {self.width:g} times its published widths"
