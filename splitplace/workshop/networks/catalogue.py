"""Networks by name."""

from collections.abc import Mapping
from typing import Protocol

from torch import nn

from splitplace.workshop.networks.common import Pixels
from splitplace.workshop.networks.inception_v3 import InceptionV3
from splitplace.workshop.networks.mobilenet_v2 import MobileNetV2
from splitplace.workshop.networks.resnet_v2 import resnet34_v2, resnet50_v2
from splitplace.workshop.networks.vision_transformer import VisionTransformer


class Constructor(Protocol):
    """Build a network with random weights for square pictures."""

    def __call__(self, outputs: int, *, pixels: Pixels, side: int, width: float) -> nn.Module:
        """See `network`."""


NETWORKS: Mapping[str, Constructor] = {
    "resnet50_v2": resnet50_v2,
    "resnet34_v2": resnet34_v2,
    "mobilenet_v2": MobileNetV2,
    "inception_v3": InceptionV3,
    "vision_transformer": VisionTransformer,
}
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_DEVIATION = (58.395, 57.12, 57.375)
"""Mean and deviation of red, green and blue, in bytes, as published weights expect."""
PRINTED_SIDES: Mapping[str, int] = dict.fromkeys(NETWORKS, 224) | {"inception_v3": 299}
"""Side of the pictures, in pixels, for which each network was published."""


def network(
    name: str, outputs: int, *, side: int, pixels: Pixels | None = None, width: float = 1.0
) -> nn.Module:
    """Build a network with random weights.

    Args:
        name: One of `NETWORKS`.
        outputs: Number of logits.
        side: Side of the pictures, in pixels.
        pixels: Channels of the pictures, and how their values are normalised; default: as for ImageNet.
        width: Multiplier for all numbers of channels.

    Raises:
        ValueError: There is no network of that name, or it does not accept pictures of that size.
    """
    constructor = NETWORKS.get(name)
    if constructor is None:
        raise ValueError(f"there is no network {name!r}; there are {', '.join(NETWORKS)}")
    pixels = pixels or Pixels(IMAGENET_MEAN, IMAGENET_DEVIATION)
    return constructor(outputs, pixels=pixels, side=side, width=width)
