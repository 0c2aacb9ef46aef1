"""Branches that start as the whole network, with its head reduced to a group of classes and channels pruned.

They keep what the whole network has learnt about their classes, so a short joint training replaces a long one
from random weights.
"""

import copy
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from splitplace.workshop.compression.pruning import prune
from splitplace.workshop.networks.common import Classifier
from splitplace.workshop.training.semantic import Branches, Groups

MARGIN = 0.9
"""Share of 1/k of the work that a branch may have: narrow layers take more time than their FLOPs suggest."""


def specialised_branches(whole: Classifier, groups: Groups, images: NDArray[Any]) -> Branches:
    """Make one branch for each of k groups, with at most `MARGIN` / k of the whole network's operations.

    The same network and images always give the same branches. They need fine-tuning: see
    `splitplace.workshop.training.semantic.distillation`.

    Args:
        whole: The trained network. It is not changed.
        groups: The classes of each branch.
        images: `[N, C, H, W]`, a few hundred training images for the statistics of the normalisations.

    Raises:
        PruningError: The network cannot be pruned that far.
    """
    pruned = [prune(headed(whole, group), images, MARGIN / len(groups)) for group in groups]
    remaining = iter(pruned)
    return Branches(groups, lambda _: next(remaining))


def headed(whole: Classifier, group: tuple[int, ...]) -> Classifier:
    """Copy a network with a head for only some of its classes."""
    network = copy.deepcopy(whole)
    rows = list(group)
    head = nn.Linear(whole.classifier.in_features, len(group))
    with torch.no_grad():
        head.weight.copy_(whole.classifier.weight[rows])
        head.bias.copy_(whole.classifier.bias[rows])
    network.classifier = head
    return network
