"""How the values of pixels are normalised: the first step of every network, and part of what is exported."""

import torch
from torch import Tensor, nn


class Pixels(nn.Module):
    """Takes off the mean of each channel and divides by its standard deviation.

    The constants are no weights: they belong to the data set, stand in the code and not in a checkpoint.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
        """Both in bytes (0 to 255), one value a channel."""
        super().__init__()
        self.channels = len(mean)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """`uint8` or `float32[N, C, H, W]` of values 0 to 255 to normalised `float32[N, C, H, W]`."""
        return (images.float() - self.mean) / self.deviation
