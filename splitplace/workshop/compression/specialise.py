"""Branches that begin as the whole network: its head cut down to a group of classes, its channels pruned.

What the whole network has learnt is kept where it matters, so a short training together takes the
place of one from random weights.
"""

import copy
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from splitplace.workshop.compression.pruning import prune
from splitplace.workshop.networks.resnet_v2 import ResNetV2
from splitplace.workshop.training.semantic import Branches, Groups

MARGIN = 0.9
"""Share of 1/k that a branch may cost: narrow layers take more time than their operations suggest."""


def specialised_branches(whole: ResNetV2, groups: Groups, images: NDArray[Any]) -> Branches:
    """One branch for each of k groups, of at most `MARGIN` / k of the whole network's operations.

    The same network and images always give the same branches. They are not fine-tuned: see
    `splitplace.workshop.training.semantic.distillation`.

    Args:
        whole: The trained network; it is not changed.
        groups: The classes of each branch.
        images: `[N, C, H, W]`, some hundred training images for the statistics of the normalisations.

    Raises:
        PruningError: The network cannot be made as small.
    """
    pruned = [prune(headed(whole, group), images, MARGIN / len(groups)) for group in groups]
    remaining = iter(pruned)
    return Branches(groups, lambda _: next(remaining))


def headed(whole: ResNetV2, group: tuple[int, ...]) -> ResNetV2:
    """A copy of a network that gives the logits of some of its classes only."""
    network = copy.deepcopy(whole)
    rows = list(group)
    head = nn.Linear(whole.classifier.in_features, len(group))
    with torch.no_grad():
        head.weight.copy_(whole.classifier.weight[rows])
        head.bias.copy_(whole.classifier.bias[rows])
    network.classifier = head
    return network
