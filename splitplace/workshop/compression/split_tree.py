"""Cut a residual network into a tree: a shared trunk, and a branch for each group of classes and features."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn

from splitplace.workshop.networks.common import CHANNEL_MULTIPLE
from splitplace.workshop.networks.resnet_v2 import PreActivationBlock, ResNetV2
from splitplace.workshop.training.semantic import Branches
from splitplace.workshop.training.splitnet import Assignments, Grouped, Strengths

CLASSES = "classes"


class SplitNet(nn.Module):
    """A residual network that learns how to be split. As a module it is the network."""

    def __init__(self, network: ResNetV2, groups: int, trunk: int) -> None:
        """Add the assignments.

        Args:
            network: The network of pairs of 3x3 convolutions; it is part of this module, not copied.
            groups: Number of branches.
            trunk: Number of blocks that all branches share; the next one changes the number of channels.

        Raises:
            ValueError: The network cannot be split there.
        """
        super().__init__()
        if not 0 < trunk < len(network.blocks) or _block(network, trunk).shortcut is None:
            raise ValueError(f"a network of {len(network.blocks)} blocks cannot be split after {trunk}")
        self.network = network
        self.trunk = trunk
        sizes = {CLASSES: network.classifier.out_features}
        for number in range(trunk, len(network.blocks)):
            block = _block(network, number)
            sizes[_inner(number)] = block.conv1.out_channels
            sizes[self._stream(number)] = block.conv2.out_channels
        self.assignments = Assignments(groups, sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` with values 0 to 255 to logits `float32[N, outputs]`."""
        logits: Tensor = self.network(images)
        return logits

    def penalty(self, strengths: Strengths | None = None) -> Tensor:
        """Return the regularisation, a scalar to add to the loss."""
        return self.assignments.penalty(self._grouped(), strengths or Strengths())

    def split(self) -> "Tree":
        """Cut the weights between groups away and return the tree, with copies of all other weights."""
        groups = self.assignments.groups
        least = {axis: 1 if axis == CLASSES else CHANNEL_MULTIPLE for axis in self.assignments.raw}
        owners = {axis: self.assignments.hard(axis, least[axis]) for axis in self.assignments.raw}
        shared = [self.network.blocks[number] for number in range(self.trunk)]
        trunk = copy.deepcopy(nn.ModuleList([self.network.stem, *shared]))
        branches = []
        for group in range(groups):
            others = {axis: np.flatnonzero(owner != group).tolist() for axis, owner in owners.items()}
            branches.append(self._branch(others, trunk))
        classes = [tuple(np.flatnonzero(owners[CLASSES] == group).tolist()) for group in range(groups)]
        return Tree(classes, branches, self.trunk)

    def _branch(self, others: Mapping[str, list[int]], trunk: nn.ModuleList) -> ResNetV2:
        """Return the network without the members of other groups after the trunk, which is shared."""
        branch = copy.deepcopy(self.network)
        branch.stem = trunk[0]
        for number in range(self.trunk):
            branch.blocks[number] = trunk[number + 1]
        removed: list[int] = []  # the trunk keeps its channels
        for number in range(self.trunk, len(branch.blocks)):
            block = _block(branch, number)
            inner, stream = others[_inner(number)], others[self._stream(number)]
            torch_pruning.prune_batchnorm_out_channels(block.norm1, removed)
            torch_pruning.prune_conv_in_channels(block.conv1, removed)
            torch_pruning.prune_conv_out_channels(block.conv1, inner)
            torch_pruning.prune_batchnorm_out_channels(block.norm2, inner)
            torch_pruning.prune_conv_in_channels(block.conv2, inner)
            torch_pruning.prune_conv_out_channels(block.conv2, stream)
            if block.shortcut is not None:
                torch_pruning.prune_conv_in_channels(block.shortcut, removed)
                torch_pruning.prune_conv_out_channels(block.shortcut, stream)
            removed = stream
        torch_pruning.prune_batchnorm_out_channels(branch.norm, removed)
        torch_pruning.prune_linear_in_channels(branch.classifier, removed)
        torch_pruning.prune_linear_out_channels(branch.classifier, others[CLASSES])
        return branch

    def _grouped(self) -> list[Grouped]:
        """Return every weight between two grouped axes."""
        found = []
        for number in range(self.trunk, len(self.network.blocks)):
            block, stream = _block(self.network, number), self._stream(number)
            found.append(Grouped(block.conv2.weight, stream, _inner(number)))
            if number == self.trunk:
                continue  # the trunk is not grouped
            before = self._stream(number - 1)
            found.append(Grouped(block.conv1.weight, _inner(number), before))
            if block.shortcut is not None:
                found.append(Grouped(block.shortcut.weight, stream, before))
        last = self._stream(len(self.network.blocks) - 1)
        return [*found, Grouped(self.network.classifier.weight, CLASSES, last)]

    def _stream(self, number: int) -> str:
        """Return the axis of the channels after a block, which residual connections share."""
        while _block(self.network, number).shortcut is None:
            number -= 1
        return f"stream-{number}"


class Tree(Branches):
    """Branches on a common trunk, which is computed once. Each is a whole network that shares its weights."""

    def __init__(self, groups: Sequence[tuple[int, ...]], branches: Sequence[ResNetV2], trunk: int) -> None:
        """Join the branches; the first `trunk` blocks of each are the same."""
        remaining = iter(branches)
        super().__init__(tuple(groups), lambda _: next(remaining))
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` to logits `float32[N, classes]`, in the classes' order."""
        networks = [branch for branch in self.branches if isinstance(branch, ResNetV2)]
        first = networks[0]
        maps = first.blocks[: self.trunk](first.stem(first.pixels(images)))
        logits = []
        for network in networks:
            features = torch.relu(network.norm(network.blocks[self.trunk :](maps))).mean(dim=(2, 3))
            logits.append(network.classifier(features))
        return torch.cat(logits, dim=1)[:, self.order]


def _block(network: ResNetV2, number: int) -> PreActivationBlock:
    block = network.blocks[number]
    if not isinstance(block, PreActivationBlock):
        raise TypeError("only networks of pairs of 3x3 convolutions can be split")
    return block


def _inner(number: int) -> str:
    return f"inner-{number}"
