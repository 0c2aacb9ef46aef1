"""Semantic splitting: parallel branches that each own a group of the classes.

The branches are trained together, with one softmax over all their logits, so that logits of different
branches can be compared. Trained apart, nearly every error would be that the wrong branch wins.
"""

from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitplace.workshop.datasets import Subset
from splitplace.workshop.training.loop import Loss, in_batches

Groups = tuple[tuple[int, ...], ...]


def class_similarity(features: NDArray[np.float32], labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return the cosine similarity `float64[C, C]` of the classes' mean features, centred on their mean.

    Args:
        features: `[N, F]`, the whole network's features of each image before its classifier.
        labels: `[N]`, values 0 to C - 1, each at least once.
    """
    means = np.stack(
        [features[labels == index].mean(axis=0, dtype=np.float64) for index in np.unique(labels)]
    )
    centred = means - means.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


def group_classes(similarity: NDArray[np.float64], branches: int) -> Groups:
    """Divide the classes into groups of equal size (to within one), with similar classes together.

    Similar classes are the hard ones to tell apart, and within one branch they share features. The division
    is improved by swapping pairs of classes between groups until no swap helps (Kernighan and Lin 1970).

    Args:
        similarity: `[C, C]`, symmetric.
        branches: Number of groups, 1 to C.

    Raises:
        ValueError: There are fewer classes than branches, or no branch.
    """
    classes = len(similarity)
    if not 1 <= branches <= classes:
        raise ValueError(f"cannot divide {classes} classes among {branches} branches")
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
        """Build a branch for each group; `branch` maps a number of outputs to a network."""
        super().__init__()
        self.groups = groups
        self.branches = nn.ModuleList(branch(len(group)) for group in groups)
        columns = [index for group in groups for index in group]
        self.order = [columns.index(index) for index in range(len(columns))]

    def forward(self, images: Tensor) -> Tensor:
        """Map `uint8` or `float32[N, C, H, W]` to logits `float32[N, classes]`, in the classes' order."""
        logits = torch.cat([branch(images) for branch in self.branches], dim=1)
        return logits[:, self.order]


def index_groups(classes: int, branches: int) -> Groups:
    """Divide the classes by their numbers, as the paper's experiments did: the baseline for better divisions.

    Raises:
        ValueError: There are fewer classes than branches, or no branch.
    """
    if not 1 <= branches <= classes:
        raise ValueError(f"cannot divide {classes} classes among {branches} branches")
    parts = np.array_split(np.arange(classes), branches)
    return tuple(tuple(int(index) for index in part) for part in parts)


def branch_of(groups: Groups) -> NDArray[np.int64]:
    """Return, as `int64[C]`, the number of the branch that owns each class."""
    owners = np.empty(sum(len(group) for group in groups), np.int64)
    for number, group in enumerate(groups):
        owners[list(group)] = number
    return owners


def shares_of_answers(network: nn.Module, groups: Groups, subset: Subset) -> tuple[float, float]:
    """Return the shares of images whose answer is right, and whose answer is a class of a wrong branch."""
    answers = in_batches(network, subset.images).argmax(axis=1)
    owners = branch_of(groups)
    right, astray = answers == subset.labels, owners[answers] != owners[subset.labels]
    return float(right.mean()), float(astray.mean())


def distillation(
    student: nn.Module, teacher: nn.Module, temperature: float = 3.0, share: float = 0.5
) -> Loss:
    """Return a loss: cross entropy with the labels and with the teacher's softened answers (Hinton 2015).

    Args:
        student: The branches, as one network.
        teacher: The trained whole network; its weights stay as they are.
        temperature: Divisor of both networks' logits.
        share: Weight of the teacher's part, 0 to 1.
    """
    return branch_loss(student, teacher=teacher, temperature=temperature, share=share)


def branch_loss(
    student: nn.Module,
    *,
    teacher: nn.Module | None = None,
    temperature: float = 3.0,
    share: float = 0.5,
    groups: Groups = (),
    other_share: float = 0.3,
) -> Loss:
    """Return the loss of branches: one softmax over all logits, and two optional terms.

    Args:
        student: The branches, as one network.
        teacher: The trained whole network, to imitate; its weights stay as they are.
        temperature: Divisor of both networks' logits for that.
        share: Weight of the teacher's part against the labels', 0 to 1.
        groups: If given, each branch also learns to say "none of mine" (see `other_loss`).
        other_share: Weight of that part against the rest, 0 to 1.
    """
    if teacher is not None:
        teacher.eval()
    owners = torch.from_numpy(branch_of(groups))

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        logits = student(images).float()
        value = nn.functional.cross_entropy(logits, labels)
        if teacher is not None:
            with torch.no_grad():
                target = torch.softmax(teacher(images).float() / temperature, dim=1)
            imitation = nn.functional.cross_entropy(logits / temperature, target) * temperature**2
            value = (1 - share) * value + share * imitation
        if groups:
            value = (1 - other_share) * value + other_share * other_loss(logits, labels, owners)
        return value

    return loss


def other_loss(logits: Tensor, labels: Tensor, owners: Tensor) -> Tensor:
    """Return the mean cross entropy of each branch alone, over its own classes and "none of mine".

    The logit of "none of mine" is fixed at 0. That loses nothing, because a softmax depends only on
    differences: a learned one could be subtracted from the branch's other logits. So each logit becomes the
    log-odds of its class against all classes of other branches, which is comparable across branches, and the
    exported branch has no extra column.

    Args:
        logits: `float32[N, C]`, in the order of the classes.
        labels: `int64[N]`.
        owners: `int64[C]`, the branch of each class.
    """
    owners = owners.to(labels.device)
    none = logits.new_zeros(len(logits), 1)
    total = logits.new_zeros(())
    branches = int(owners.max()) + 1
    for branch in range(branches):
        own = owners == branch
        column = torch.cumsum(own, 0)  # 1 for the first own class; 0 stands for "none of mine"
        target = torch.where(own[labels], column[labels], 0)
        total = total + nn.functional.cross_entropy(torch.cat([none, logits[:, own]], dim=1), target)
    return total / branches
