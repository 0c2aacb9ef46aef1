"""MobileNetV2 (Sandler et al. 2018): inverted residuals and linear bottlenecks."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from typing_extensions import override

from splitplace.workshop.networks.common import Classifier, Pixels, Stem, scaled

LARGEST_SMALL_SIDE = 64
"""Up to this side the stem is `full` unless one is asked for: the printed reductions are meant for 224."""
STEM_CHANNELS = 32
LAST_CHANNELS = 1280
DROPOUT = 0.2


class Group(NamedTuple):
    """One row of the paper's table 2."""

    expansion: int
    channels: int
    blocks: int
    stride: int


FIRST_HALVING = Group(6, 24, 2, 2)
GROUPS = (
    Group(1, 16, 1, 1),
    FIRST_HALVING,
    Group(6, 32, 3, 2),
    Group(6, 64, 4, 2),
    Group(6, 96, 3, 1),
    Group(6, 160, 3, 2),
    Group(6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Widen, convolve depthwise, and narrow without an activation."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        widen = [] if expansion == 1 else [_convolution(channels_in, inner, 1)]
        self.layers = nn.Sequential(
            *widen,
            _convolution(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.carries = stride == 1 and channels_in == channels_out

    def forward(self, features: Tensor) -> Tensor:
        """Map `float32[N, channels_in, H, W]` to `float32[N, channels_out, H / stride, W / stride]`."""
        output: Tensor = self.layers(features)
        return features + output if self.carries else output


class MobileNetV2(Classifier):
    """Images in bytes to logits."""

    def __init__(
        self,
        outputs: int,
        *,
        pixels: Pixels,
        side: int = 224,
        width: float = 1.0,
        stem: Stem | None = None,
        groups: Sequence[Group] = GROUPS,
    ) -> None:
        """Draws random weights: 3.5 million for pictures of 224 and 1000 classes.

        Args:
            outputs: Number of logits.
            pixels: Channels of the pictures, and how their values are normalised.
            side: Of the pictures, in pixels.
            width: Multiplier of all widths; of the last layer only where it is greater than 1, as printed.
            stem: How many of the first two halvings stay: none, one, or both (`quartering`, as printed).
                None = by the side of the pictures.
            groups: Groups of blocks; fewer make a network for tests.
        """
        super().__init__()
        stem = stem or ("full" if side <= LARGEST_SMALL_SIDE else "quartering")
        self.pixels = pixels
        channels = scaled(STEM_CHANNELS, width)
        self.stem = _convolution(pixels.channels, channels, 3, stride=1 if stem == "full" else 2)
        blocks = []
        for group in groups:
            keeps_sides = stem != "quartering" and group is FIRST_HALVING
            after = scaled(group.channels, width)
            for index in range(group.blocks):
                stride = 1 if index or keeps_sides else group.stride
                blocks.append(InvertedResidual(channels, after, stride, group.expansion))
                channels = after
        self.blocks = nn.Sequential(*blocks)
        last = scaled(LAST_CHANNELS, max(1.0, width))
        self.head = _convolution(channels, last, 1)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(last, outputs)

    @override
    def features(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` with values 0 to 255 to features `float32[N, F]`."""
        maps: Tensor = self.head(self.blocks(self.stem(self.pixels(images))))
        return maps.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` with values 0 to 255 to logits `float32[N, outputs]`."""
        logits: Tensor = self.classifier(self.dropout(self.features(images)))
        return logits


def _convolution(
    channels_in: int, channels_out: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Module:
    """Convolution, batch normalisation and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU6(inplace=True),
    )
