"""A small vision transformer (Dosovitskiy et al. 2020; the sizes of "DeiT-Ti", Touvron et al. 2020)."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from splitplace.workshop.networks.common import Classifier, Pixels, scaled

LARGEST_SMALL_SIDE = 64
SMALL_PATCH = 4
PATCH = 16
HEADS = 3
HEAD_CHANNELS = 64
DEPTH = 12
MLP_RATIO = 4
_EPSILON = 1e-6
_INITIAL_DEVIATION = 0.02


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map `float32[N, T, C]` to the same shape."""
        parts = self.query_key_value(tokens).unflatten(2, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        read = nn.functional.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.projection(read.transpose(1, 2).flatten(2))
        return mixed


class EncoderBlock(nn.Module):
    """Attention and a perceptron, each after normalisation, with residual connections."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=_EPSILON)
        self.attention = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=_EPSILON)
        self.perceptron = nn.Sequential(
            nn.Linear(channels, MLP_RATIO * channels), nn.GELU(), nn.Linear(MLP_RATIO * channels, channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map `float32[N, T, C]` to the same shape."""
        tokens = tokens + self.attention(self.norm1(tokens))
        output: Tensor = tokens + self.perceptron(self.norm2(tokens))
        return output


class VisionTransformer(Classifier):
    """Vision transformer from images in bytes to logits. It accepts pictures of one size only."""

    def __init__(
        self, outputs: int, *, pixels: Pixels, side: int = 224, width: float = 1.0, depth: int = DEPTH
    ) -> None:
        """Draw random weights: 5.7 million for pictures of 224 and 1000 classes.

        Args:
            outputs: Number of logits.
            pixels: Channels of the pictures, and how their values are normalised.
            side: Side of the pictures, in pixels: a multiple of 16, or of 4 up to 64.
            width: Multiplier for the channels of each of the three heads.
            depth: Number of blocks.

        Raises:
            ValueError: The side is not a multiple of the patch size.
        """
        super().__init__()
        patch = SMALL_PATCH if side <= LARGEST_SMALL_SIDE else PATCH
        if side % patch:
            raise ValueError(f"pictures of {side} pixels a side cannot be divided into patches of {patch}")
        channels = HEADS * scaled(HEAD_CHANNELS, width)
        self.pixels = pixels
        self.patches = nn.Conv2d(pixels.channels, channels, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.positions = nn.Parameter(torch.empty(1, (side // patch) ** 2 + 1, channels))
        nn.init.trunc_normal_(self.class_token, std=_INITIAL_DEVIATION)
        nn.init.trunc_normal_(self.positions, std=_INITIAL_DEVIATION)
        self.blocks = nn.Sequential(*(EncoderBlock(channels, HEADS) for _ in range(depth)))
        self.norm = nn.LayerNorm(channels, eps=_EPSILON)
        self.classifier = nn.Linear(channels, outputs)

    @override
    def features(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, side, side]`, 0 to 255, to the class token `float32[N, F]`."""
        patches = self.patches(self.pixels(images)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        encoded: Tensor = self.norm(self.blocks(tokens + self.positions))
        return encoded[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, side, side]`, 0 to 255, to logits `float32[N, outputs]`."""
        logits: Tensor = self.classifier(self.features(images))
        return logits
