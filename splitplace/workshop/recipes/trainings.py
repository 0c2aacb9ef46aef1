"""Train the networks of a recipe: the whole network, then those that learn from it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor, nn

from splitplace.workshop.compression.bottleneck import insert_bottlenecks
from splitplace.workshop.compression.pruning import prune
from splitplace.workshop.compression.specialise import specialised_branches
from splitplace.workshop.datasets import Dataset
from splitplace.workshop.networks.resnet_v2 import ResNetV2
from splitplace.workshop.recipes.recipes import Recipe
from splitplace.workshop.training.loop import Epoch, Loss, TrainingSchedule, in_batches, train
from splitplace.workshop.training.semantic import (
    Branches,
    Groups,
    class_similarity,
    distillation,
    group_classes,
)

GROUPING_IMAGES = 10_000
"""Number of training images from which the similarity of classes is computed."""
CALIBRATION_IMAGES = 1024
"""Number of training images from which normalisations and bottlenecks of a changed network are set."""


@dataclass(frozen=True)
class Workbench:
    """What all trainings of one build have in common."""

    recipe: Recipe
    data: Dataset
    """Trainings do not use its test part."""
    checkpoints: Path
    """Folder of checkpoints: interrupted trainings resume from them, finished ones are only read."""
    progress: Progress
    device: str = "cpu"

    def train(
        self, name: str, network: nn.Module, loss: Loss, schedule: TrainingSchedule
    ) -> tuple[Epoch, ...]:
        """Train one network; `name` is the name of its checkpoint."""
        return train(
            network,
            loss,
            schedule,
            training=self.data.training,
            validation=self.data.validation,
            augmentation=self.recipe.augmentation,
            checkpoint=self.checkpoints / f"{name}.pt",
            progress=self.progress,
            device=self.device,
        )


@dataclass(frozen=True)
class Whole:
    """The whole network in evaluation mode, with its training curve."""

    network: ResNetV2
    curve: tuple[Epoch, ...]


@dataclass(frozen=True)
class Semantic:
    """The branches in evaluation mode, with their training curve."""

    branches: Branches
    groups: Groups
    curve: tuple[Epoch, ...]


@dataclass(frozen=True)
class Derived:
    """A changed and fine-tuned copy of the whole network in evaluation mode, with its training curve."""

    network: nn.Module
    curve: tuple[Epoch, ...]


def train_whole(bench: Workbench) -> Whole:
    """Train the whole network from random weights."""
    recipe = bench.recipe
    torch.manual_seed(recipe.schedule.seed)
    network = recipe.network(len(recipe.labels), recipe.widths)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(network(images), labels, label_smoothing=recipe.label_smoothing)

    curve = bench.train("whole", network, loss, recipe.schedule)
    if recipe.second_schedule is not None:
        curve += bench.train("whole-2", network, loss, recipe.second_schedule)
    return Whole(network, curve)


def train_semantic(bench: Workbench, whole: ResNetV2) -> Semantic:
    """Train the branches together, on the labels and on the whole network's answers."""
    recipe = bench.recipe
    training = bench.data.training
    images, labels = training.images[:GROUPING_IMAGES], training.labels[:GROUPING_IMAGES]
    similarity = class_similarity(in_batches(whole.features, images), labels)
    groups = group_classes(similarity, recipe.branches)
    bench.progress.console.print(f"semantic: groups of classes {groups}")
    torch.manual_seed(recipe.schedule.seed)
    if recipe.specialised:
        branches = specialised_branches(whole, groups, training.images[:CALIBRATION_IMAGES])
    else:
        branches = Branches(groups, lambda outputs: recipe.network(outputs, recipe.branch_widths))
    teacher = whole.to(bench.device)
    loss = distillation(branches, teacher)
    curve = bench.train(f"semantic-{recipe.branches}", branches, loss, recipe.semantic_schedule)
    whole.to("cpu")
    return Semantic(branches, groups, curve)


def train_compressed(bench: Workbench, whole: ResNetV2) -> Derived:
    """Prune the whole network and fine-tune the result on the whole network's answers."""
    recipe = bench.recipe
    network = prune(whole, bench.data.training.images[:CALIBRATION_IMAGES], recipe.compressed_flops)
    return _fine_tuned(bench, "compressed", network, whole, recipe.compressed_schedule)


def train_bottleneck(bench: Workbench, whole: ResNetV2) -> Derived:
    """Insert bottlenecks into the whole network and fine-tune it on the whole network's answers."""
    recipe = bench.recipe
    images = bench.data.training.images[:CALIBRATION_IMAGES]
    network = insert_bottlenecks(whole, recipe.bottlenecks, images)
    return _fine_tuned(bench, "bottleneck", network, whole, recipe.bottleneck_schedule)


def _fine_tuned(
    bench: Workbench, name: str, network: nn.Module, whole: ResNetV2, schedule: TrainingSchedule
) -> Derived:
    loss = distillation(network, whole.to(bench.device))
    curve = bench.train(name, network, loss, schedule)
    whole.to("cpu")
    return Derived(network, curve)


def default_device() -> str:
    """Return `cuda` if there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"
