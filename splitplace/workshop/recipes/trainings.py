"""Train the networks of a recipe: the whole network, then those that learn from it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

from splitplace.errors import ConfigurationError
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.compression.bottleneck import insert_bottlenecks
from splitplace.workshop.compression.pruning import prune
from splitplace.workshop.compression.specialise import specialised_branches
from splitplace.workshop.datasets import Dataset
from splitplace.workshop.networks.common import Classifier
from splitplace.workshop.networks.early_exits import EarlyExits
from splitplace.workshop.networks.resnet_v2 import ResNetV2
from splitplace.workshop.recipes.recipes import Recipe, RecipePart
from splitplace.workshop.recipes.teacher import soft_targets, version_of
from splitplace.workshop.training.loop import (
    Epoch,
    Loss,
    TrainingSchedule,
    digest_of_weights,
    in_batches,
    train,
)
from splitplace.workshop.training.semantic import (
    Branches,
    Groups,
    branch_loss,
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
    store: ModelStore
    """Where teachers are."""
    device: str = "cpu"

    def arithmetic(self, part: RecipePart) -> torch.autocast:
        """Return the context in which the networks of a training compute: bfloat16 if the recipe says so."""
        enabled = part in self.recipe.bfloat16
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=enabled)

    def targets(self) -> NDArray[np.float32]:
        """Return what the whole network learns from labels and teacher."""
        self.progress.console.print(f"answers of {self.recipe.teacher} to the training images")
        return soft_targets(self.store, self.recipe.teacher, self.data.training, self.checkpoints)

    def train(
        self,
        name: str,
        network: nn.Module,
        loss: Loss,
        schedule: TrainingSchedule,
        *,
        targets: Callable[[], NDArray[np.float32]] | None = None,
        origin: str = "",
    ) -> tuple[Epoch, ...]:
        """Train one network; `name` is the name of its checkpoint. For the rest see `training.loop.train`."""
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
            targets=targets,
            origin=origin,
        )


@dataclass(frozen=True)
class Whole:
    """The whole network in evaluation mode, with its training curve."""

    network: Classifier
    curve: tuple[Epoch, ...]
    exits: EarlyExits | None = None
    """The network with its early exits, if it was trained with some."""


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
    """Train the whole network from random weights, together with its early exits.

    Raises:
        ConfigurationError: The recipe has early exits, but its network is no residual network.
        StoreError: The recipe has a teacher that is not in the store.
    """
    recipe = bench.recipe
    torch.manual_seed(recipe.schedule.seed)
    network = recipe.whole()
    exits = _with_exits(network, recipe)
    loss = _loss_of_whole(bench, network, exits)
    trained = exits or network
    targets, origin = None, ""
    if recipe.teacher:
        targets, origin = bench.targets, version_of(bench.store, recipe.teacher, bench.data.training)
    curve = bench.train("whole", trained, loss, recipe.schedule, targets=targets, origin=origin)
    if recipe.second_schedule is not None:
        first = digest_of_weights(trained)
        curve += bench.train("whole-2", trained, loss, recipe.second_schedule, targets=targets, origin=first)
    return Whole(network, curve, exits)


def _with_exits(network: Classifier, recipe: Recipe) -> EarlyExits | None:
    if not recipe.early_exits:
        return None
    if not isinstance(network, ResNetV2):
        raise ConfigurationError(f"the recipe of {recipe.name} has early exits; they need a residual network")
    return EarlyExits(network, recipe.early_exits)


def _loss_of_whole(bench: Workbench, network: Classifier, exits: EarlyExits | None) -> Loss:
    recipe = bench.recipe

    def loss(images: Tensor, target: Tensor) -> Tensor:
        with bench.arithmetic("whole"):
            every = exits.all_logits(images) if exits else [network(images)]
        *early, last = (
            nn.functional.cross_entropy(logits.float(), target, label_smoothing=recipe.label_smoothing)
            for logits in every
        )
        return last + recipe.exit_share * sum(early, last.new_zeros(()))

    return loss


def train_semantic(bench: Workbench, whole: Classifier) -> Semantic:
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
        branches = Branches(groups, recipe.branch)
    of_branches = (
        distillation(branches, whole.to(bench.device)) if recipe.distilled else branch_loss(branches)
    )
    loss = _computed_in(bench.arithmetic("semantic"), of_branches)
    curve = bench.train(
        f"semantic-{recipe.branches}",
        branches,
        loss,
        recipe.semantic_schedule,
        origin=digest_of_weights(whole),
    )
    whole.to("cpu")
    return Semantic(branches, groups, curve)


def train_compressed(bench: Workbench, whole: Classifier) -> Derived:
    """Prune the whole network and fine-tune the result on the whole network's answers.

    Raises:
        ConfigurationError: The recipe has no such variant.
    """
    recipe = bench.recipe
    if recipe.compressed_schedule is None:
        raise ConfigurationError(f"the recipe of {recipe.name} has no compressed variant")
    network = prune(whole, bench.data.training.images[:CALIBRATION_IMAGES], recipe.compressed_flops)
    return _fine_tuned(bench, "compressed", network, whole, recipe.compressed_schedule)


def train_bottleneck(bench: Workbench, whole: Classifier) -> Derived:
    """Insert bottlenecks into the whole network and fine-tune it on the whole network's answers."""
    recipe = bench.recipe
    images = bench.data.training.images[:CALIBRATION_IMAGES]
    network = insert_bottlenecks(whole, recipe.bottlenecks, images)
    return _fine_tuned(bench, "bottleneck", network, whole, recipe.bottleneck_schedule)


def _fine_tuned(
    bench: Workbench,
    name: Literal["compressed", "bottleneck"],
    network: nn.Module,
    whole: Classifier,
    schedule: TrainingSchedule,
) -> Derived:
    loss = _computed_in(bench.arithmetic(name), distillation(network, whole.to(bench.device)))
    curve = bench.train(name, network, loss, schedule, origin=digest_of_weights(whole))
    whole.to("cpu")
    return Derived(network, curve)


def _computed_in(arithmetic: torch.autocast, loss: Loss) -> Loss:
    def computed(images: Tensor, target: Tensor) -> Tensor:
        with arithmetic:
            return loss(images, target)

    return computed


def default_device() -> str:
    """Return `cuda` if there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"
