"""Semantic splitting: parallel branches that each know a group of the classes.

The branches are trained together, with one softmax over all their logits, so that a logit of one branch can
be compared with a logit of another. Trained apart, nearly every error would be the wrong branch winning.
"""

from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.training import Loss

Groups = tuple[tuple[int, ...], ...]


def class_similarity(features: NDArray[np.float32], labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Cosine similarity `float64[C, C]` between the classes' mean features, less the mean of all classes.

    Args:
        features: `[N, F]`, what the whole network sees in each image before it classifies it.
        labels: `[N]`, values 0 to C - 1, each at least once.
    """
    means = np.stack(
        [features[labels == index].mean(axis=0, dtype=np.float64) for index in np.unique(labels)]
    )
    centred = means - means.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


def group_classes(similarity: NDArray[np.float64], branches: int) -> Groups:
    """Divides the classes into groups of equal size (to within one), similar classes together.

    Telling similar classes apart is the hard part; within one branch they share its features. The division
    is improved by swapping two classes between groups for as long as that gains (Kernighan and Lin 1970).

    Args:
        similarity: `[C, C]`, symmetric.
        branches: Number of groups, 1 to C.

    Raises:
        ValueError: There are fewer classes than branches, or no branch.
    """
    classes = len(similarity)
    if not 1 <= branches <= classes:
        msg = f"cannot divide {classes} classes among {branches} branches"
        raise ValueError(msg)
    groups = [list(range(classes))[start::branches] for start in range(branches)]
    weights = similarity - np.diag(np.diag(similarity))
    improved = True
    while improved:
        improved = False
        for one, other in combinations(groups, 2):
            for i, j in product(range(len(one)), range(len(other))):
                a, b = one[i], other[j]
                lost = weights[a, one].sum() + weights[b, other].sum()
                gained = weights[a, other].sum() + weights[b, one].sum() - 2 * weights[a, b]
                if gained > lost + 1e-12:
                    one[i], other[j] = b, a
                    improved = True
    return tuple(sorted(tuple(sorted(group)) for group in groups))


class Branches(nn.Module):
    """The branches side by side, as one network over all classes."""

    def __init__(self, groups: Groups, branch: Callable[[int], nn.Module]) -> None:
        """Makes a branch for each group; `branch` is asked for a network of so many outputs."""
        super().__init__()
        self.branches = nn.ModuleList(branch(len(group)) for group in groups)
        columns = [index for group in groups for index in group]
        self.order = [columns.index(index) for index in range(len(columns))]

    def forward(self, images: Tensor) -> Tensor:
        """`uint8` or `float32[N, C, H, W]` to logits `float32[N, classes]`, in the order of the classes."""
        logits = torch.cat([branch(images) for branch in self.branches], dim=1)
        return logits[:, self.order]


def distillation(
    student: nn.Module, teacher: nn.Module, temperature: float = 3.0, share: float = 0.5
) -> Loss:
    """Cross entropy with the labels, and with the softened answers of the whole network (Hinton 2015).

    Args:
        student: The branches, as one network.
        teacher: The trained whole network; its weights stay as they are.
        temperature: By what both sides' logits are divided.
        share: Weight of the teacher's part, 0 to 1.
    """
    teacher.eval()

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        logits = student(images)
        with torch.no_grad():
            target = torch.softmax(teacher(images) / temperature, dim=1)
        imitation = nn.functional.cross_entropy(logits / temperature, target) * temperature**2
        return (1 - share) * nn.functional.cross_entropy(logits, labels) + share * imitation

    return loss
