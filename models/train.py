"""What is trained for MNIST: the whole network, then the branches that imitate it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from torch import nn

from models.datasets import Dataset
from models.networks.pixels import Pixels
from models.networks.resnet_v2 import ResNetV2
from models.semantic import Branches, Groups, class_similarity, distillation, group_classes
from models.training import Augmentation, Epoch, Schedule, in_batches, train

CLASSES = 10
BLOCKS = (2, 2, 2)
WHOLE_WIDTHS = (32, 64, 112)
BRANCH_WIDTHS = (16, 32, 64)
GROUPING_IMAGES = 10_000
PIXELS = Pixels((33.3,), (78.6,))


@dataclass(frozen=True)
class Trained:
    """The two networks in evaluation mode, with their training curves."""

    whole: ResNetV2
    whole_curve: tuple[Epoch, ...]
    branches: Branches
    branches_curve: tuple[Epoch, ...]
    groups: Groups


def train_all(
    data: Dataset, schedule: Schedule, *, branches: int, checkpoints: Path, progress: Progress
) -> Trained:
    """Trains the whole network and then, with its help, the branches.

    Args:
        data: Its test part is not touched here.
        schedule: How long each of the two is trained; everything random comes from its seed.
        branches: How many groups the classes are divided into.
        checkpoints: Folder in which an interrupted training is taken up again.
        progress: Where the progress is shown.
    """
    torch.manual_seed(schedule.seed)
    whole = network(CLASSES, WHOLE_WIDTHS)
    whole_curve = train(
        whole,
        lambda images, labels: nn.functional.cross_entropy(whole(images), labels),
        schedule,
        training=data.training,
        validation=data.validation,
        augmentation=Augmentation(),
        checkpoint=checkpoints / "whole.pt",
        progress=progress,
    )
    groups = _groups(whole, data, branches)
    progress.console.print(f"semantic: groups of classes {groups}")
    torch.manual_seed(schedule.seed)
    branched = Branches(groups, lambda outputs: network(outputs, BRANCH_WIDTHS))
    branches_curve = train(
        branched,
        distillation(branched, whole),
        schedule,
        training=data.training,
        validation=data.validation,
        augmentation=Augmentation(),
        checkpoint=checkpoints / f"semantic-{branches}.pt",
        progress=progress,
    )
    return Trained(whole, whole_curve, branched, branches_curve, groups)


def network(outputs: int, widths: tuple[int, ...]) -> ResNetV2:
    """A network with random weights."""
    return ResNetV2(outputs, widths=widths, blocks=BLOCKS, pixels=PIXELS, stem="halving")


def _groups(whole: ResNetV2, data: Dataset, branches: int) -> Groups:
    """Groups by what the trained whole network sees in training images."""
    images, labels = data.training.images[:GROUPING_IMAGES], data.training.labels[:GROUPING_IMAGES]
    similarity = class_similarity(in_batches(whole.features, images), labels)
    return group_classes(similarity, branches)
