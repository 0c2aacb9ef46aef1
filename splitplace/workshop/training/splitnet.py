"""SplitNet (Kim et al. 2017, the paper's reference 16): groups of classes and features by regularisation.

Every class and every feature of the layers to be split has a probability for each group. Weights between
different groups are shrunk, so that they can be cut away afterwards. The probabilities are drawn towards one
group each, and groups towards equal sizes. The regularisation is here; `compression.split_tree` cuts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_SPEED = 10.0
"""Factor from parameters to logits: they have to move further than weights do at the same learning rate."""
_START = 0.01
"""Deviation of the parameters at the start. Without noise all groups would stay alike."""
_LEAST = 1e-8
"""Added under square roots, whose slope at zero is infinite."""


class Grouped(NamedTuple):
    """A weight between two grouped axes, by the names of the axes."""

    weight: Tensor
    """`[out, in]` or `[out, in, height, width]`."""
    outputs: str
    inputs: str


class Strengths(NamedTuple):
    """Factors of the three terms of the regularisation (gamma 1 to 3 in SplitNet)."""

    weights: float = 2e-3
    disjoint: float = 1e-3
    even: float = 3e-2


class Assignments(nn.Module):
    """The probability of each group for every member of every axis."""

    def __init__(self, groups: int, sizes: Mapping[str, int]) -> None:
        """Start with nearly equal probabilities.

        Args:
            groups: Number of groups, at least 2.
            sizes: Number of members of each axis, by its name.
        """
        super().__init__()
        self.groups = groups
        self.raw = nn.ParameterDict(
            {axis: nn.Parameter(torch.randn(groups, size) * _START) for axis, size in sizes.items()}
        )

    def probabilities(self, axis: str) -> Tensor:
        """Return `float32[groups, members]`; each column sums to 1."""
        return torch.softmax(self.raw[axis] * _SPEED, dim=0)

    def penalty(self, weights: Sequence[Grouped], strengths: Strengths) -> Tensor:
        """Return the regularisation, a scalar to add to the loss."""
        axes = {axis: self.probabilities(axis) for axis in self.raw}
        between = [off_group(each.weight, axes[each.outputs], axes[each.inputs]) for each in weights]
        total = strengths.weights * torch.stack(between).sum()
        for probabilities in axes.values():
            total = total + strengths.disjoint * overlap(probabilities)
            total = total + strengths.even * unevenness(probabilities)
        return total

    def hard(self, axis: str, least: int) -> NDArray[np.int64]:
        """Return the group of each member of an axis, as `int64[members]`. See `nearest_groups`."""
        return nearest_groups(self.probabilities(axis).detach().numpy(), least)


def off_group(weight: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
    """Sum the norms of the weights between different groups (R_W of SplitNet, a (2, 1) norm).

    Args:
        weight: `[out, in]` or `[out, in, height, width]`; a kernel counts as one connection.
        outputs: `[groups, out]`, probabilities.
        inputs: `[groups, in]`, probabilities.
    """
    squares = weight.square().reshape(*weight.shape[:2], -1).sum(dim=2)
    leaving = (outputs.square() @ squares + _LEAST).sqrt() * (1 - inputs)
    entering = (inputs.square() @ squares.T + _LEAST).sqrt() * (1 - outputs)
    return leaving.sum() + entering.sum()


def overlap(probabilities: Tensor) -> Tensor:
    """Sum the products of each two groups' probabilities: 0 if every member is in one group (R_D)."""
    return (1 - probabilities.square().sum(dim=0)).sum() / 2


def unevenness(probabilities: Tensor) -> Tensor:
    """Return members times the sum of squared shares of the groups: least if groups are equal (R_E)."""
    return probabilities.shape[1] * probabilities.mean(dim=1).square().sum()


def nearest_groups(probabilities: NDArray[np.floating], least: int) -> NDArray[np.int64]:
    """Return each member's most probable group, as `int64[members]`.

    A group of fewer than `least` members gets those that are likeliest to be in it, from groups that can
    spare some.

    Args:
        probabilities: `[groups, members]`.
        least: Least number of members of a group.

    Raises:
        ValueError: There are too few members.
    """
    groups, members = probabilities.shape
    if groups * least > members:
        raise ValueError(f"{members} members are too few for {groups} groups of at least {least}")
    chosen: NDArray[np.int64] = probabilities.argmax(axis=0).astype(np.int64)
    while (counts := np.bincount(chosen, minlength=groups)).min() < least:
        needy = int(counts.argmin())
        spare = counts[chosen] > least
        chosen[int(np.where(spare, probabilities[needy], -math.inf).argmax())] = needy
    return chosen
