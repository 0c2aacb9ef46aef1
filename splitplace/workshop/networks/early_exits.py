"""Early exits: heads inside a residual network that answer before its end.

BranchyNet (Teerapittayanon et al. 2016) and DDNN (2017) train a network together with such heads. Each exit,
with the blocks before it, is a network of its own that shares the weights of the whole one.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from splitplace.workshop.networks.resnet_v2 import ResNetV2


class EarlyExits(nn.Module):
    """A residual network with heads behind some of its blocks. As a module it gives the last logits."""

    def __init__(self, network: ResNetV2, after: Sequence[int]) -> None:
        """Add heads with random weights.

        Args:
            network: The network; it is part of this module, not copied.
            after: Numbers of blocks before each exit, ascending, fewer than the network has.

        Raises:
            ValueError: The numbers are not ascending, or an exit stands at the end.
        """
        super().__init__()
        bounds = (0, *after, len(network.blocks))
        if any(earlier >= later for earlier, later in pairwise(bounds)):
            raise ValueError(
                f"exits after {tuple(after)} of {len(network.blocks)} blocks: expected ascending numbers"
            )
        self.network = network
        self.after = tuple(after)
        classes = network.classifier.out_features
        self.exits = nn.ModuleList(Head(_channels(network, number), classes) for number in after)

    def all_logits(self, images: Tensor) -> list[Tensor]:
        """Return the logits `float32[N, outputs]` of every exit and, last, of the network's end."""
        network = self.network
        maps = network.stem(network.pixels(images))
        logits = []
        for number, block in enumerate(network.blocks, start=1):
            maps = block(maps)
            if number in self.after:
                logits.append(self.exits[self.after.index(number)](maps))
        features = torch.relu(network.norm(maps)).mean(dim=(2, 3))
        return [*logits, network.classifier(features)]

    def forward(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` with values 0 to 255 to logits `float32[N, outputs]`."""
        logits: Tensor = self.network(images)
        return logits

    def up_to(self, exit_number: int) -> "UpToExit":
        """Return the network that ends with an exit (0 = the first). It shares the weights of this one."""
        return UpToExit(self.network, self.after[exit_number], self.exits[exit_number])


class UpToExit(nn.Module):
    """The blocks before an exit, and its head. Parameters of blocks have the names of the whole network."""

    def __init__(self, network: ResNetV2, blocks: int, head: nn.Module) -> None:
        """Take the first blocks of a network."""
        super().__init__()
        self.pixels = network.pixels
        self.stem = network.stem
        self.blocks = network.blocks[:blocks]
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` with values 0 to 255 to logits `float32[N, outputs]`."""
        logits: Tensor = self.head(self.blocks(self.stem(self.pixels(images))))
        return logits


def _channels(network: ResNetV2, blocks: int) -> int:
    """Return the channels that the first blocks of a network output."""
    convolutions = [part for part in network.blocks[blocks - 1].children() if isinstance(part, nn.Conv2d)]
    inner = [
        part for part in convolutions if part is not getattr(network.blocks[blocks - 1], "shortcut", None)
    ]
    return inner[-1].out_channels


class Head(nn.Module):
    """From maps to logits: normalisation, ReLU, the mean of each channel, a linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        """Draw random weights."""
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Map `float32[N, channels, H, W]` to logits `float32[N, classes]`."""
        logits: Tensor = self.classifier(torch.relu(self.norm(maps)).mean(dim=(2, 3)))
        return logits
