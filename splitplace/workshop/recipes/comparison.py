"""Compare methods of semantic splitting with each other and with the whole network.

`python -m splitplace.workshop.recipes.comparison --data DIR --images 10000 --epochs 3`

Everything is trained with the same small budget, so the figures compare methods; they are not those of the
shipped networks. Accuracy is measured on the validation images: the test images have no part in choosing.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from splitplace.bus.settings import Settings
from splitplace.messages.application import Fragment
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.cutting.profile import time_runtimes
from splitplace.workshop.datasets import PUBLISHED, DatasetError, Subset, load_published
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.packing.packer import Heading, Packer
from splitplace.workshop.recipes.comparison_table import BATCH, Row, table
from splitplace.workshop.recipes.recipes import RECIPES, Recipe
from splitplace.workshop.training.loop import TrainingSchedule, digest_of_weights, in_batches, train
from splitplace.workshop.training.semantic import (
    Branches,
    Groups,
    branch_loss,
    class_similarity,
    group_classes,
    index_groups,
    shares_of_answers,
)

FragmentCosts = Mapping[int, Fragment]
"""Measured fragments by number of outputs."""


@dataclass(frozen=True)
class BranchMethod:
    """One method of making branches."""

    grouping: Literal["similar", "index"]
    distilled: bool
    other: bool

    @property
    def name(self) -> str:
        """Name for tables and files."""
        terms = [term for term, used in (("distilled", self.distilled), ("other", self.other)) if used]
        return "-".join([self.grouping, *(terms or ["labels"])])


METHODS = (
    BranchMethod("similar", distilled=True, other=True),
    BranchMethod("similar", distilled=True, other=False),
    BranchMethod("similar", distilled=False, other=True),
    BranchMethod("similar", distilled=False, other=False),
    BranchMethod("index", distilled=True, other=False),
    BranchMethod("index", distilled=False, other=False),
)


@dataclass(frozen=True)
class Trial:
    """What all methods have in common."""

    recipe: Recipe
    schedule: TrainingSchedule
    training: Subset
    validation: Subset
    checkpoints: Path
    progress: Progress

    def train(self, name: str, network: nn.Module, method: BranchMethod | None, teacher: nn.Module) -> None:
        """Train a network in place; without a method, on its labels alone."""
        groups = network.groups if isinstance(network, Branches) else ()
        loss = branch_loss(
            network,
            teacher=teacher if method is not None and method.distilled else None,
            groups=groups if method is not None and method.other else (),
        )
        train(
            network,
            loss,
            self.schedule,
            training=self.training,
            validation=self.validation,
            augmentation=self.recipe.augmentation,
            checkpoint=self.checkpoints / f"{name}-{len(self.training)}.pt",
            progress=self.progress,
            origin="" if teacher is network else digest_of_weights(teacher),
        )


def compare(trial: Trial) -> tuple[Row, ...]:
    """Train the whole network and then the branches of every method; return a row for each."""
    recipe, classes = trial.recipe, len(trial.recipe.labels)
    torch.manual_seed(trial.schedule.seed)
    whole = recipe.whole()
    trial.train("whole", whole, None, whole)
    similarity = class_similarity(in_batches(whole.features, trial.training.images), trial.training.labels)
    groupings = {
        "similar": group_classes(similarity, recipe.branches),
        "index": index_groups(classes, recipe.branches),
    }
    networks: list[tuple[str, nn.Module, Groups]] = [("whole", whole, (tuple(range(classes)),))]
    for method in METHODS:
        groups = groupings[method.grouping]
        torch.manual_seed(trial.schedule.seed)
        branches = Branches(groups, recipe.branch)
        trial.train(method.name, branches, method, whole)
        networks.append((method.name, branches, groups))
    trial.progress.console.print("measuring")
    whole_cost, branch_costs = _costs(recipe, {len(group) for *_, groups in networks[1:] for group in groups})
    return tuple(
        _row(name, network, groups, whole_cost if network is whole else branch_costs, trial.validation)
        for name, network, groups in networks
    )


def _costs(recipe: Recipe, branch_outputs: set[int]) -> tuple[FragmentCosts, FragmentCosts]:
    """Measure the whole network and the branches by number of outputs; training does not change their cost.

    All are timed in turn, so that a disturbance affects all alike.
    """
    classes = len(recipe.labels)
    sizes = sorted(branch_outputs)
    networks = [
        recipe.whole(),
        *(recipe.branch(outputs) for outputs in sizes),
    ]
    example = np.zeros((2, *PUBLISHED[recipe.dataset].shape), np.uint8)
    heading = Heading("comparison", "", recipe.labels, TensorSpec(dtype="uint8", shape=example.shape[1:]))
    with TemporaryDirectory(prefix="splitplace-") as folder:
        packer = Packer(heading, Path(folder), BATCH)
        names = [f"network-{index}" for index in range(len(networks))]
        for name, network in zip(names, networks, strict=True):
            packer.add_network(name, export_network(network, example))
        fragments = [packer.fragment(name) for name in names]
        timings = time_runtimes([packer.load(fragment) for fragment in fragments])
    whole, *branches = (
        fragment.model_copy(
            update={"milliseconds_per_call": timing.per_call, "milliseconds_per_image": timing.per_image}
        )
        for fragment, timing in zip(fragments, timings, strict=True)
    )
    return {classes: whole}, dict(zip(sizes, branches, strict=True))


def _row(name: str, network: nn.Module, groups: Groups, costs: FragmentCosts, images: Subset) -> Row:
    accuracy, wrong_branch = shares_of_answers(network, groups, images)
    return Row(
        name=name,
        branches=len(groups),
        accuracy=accuracy,
        wrong_branch=wrong_branch,
        fragments=tuple(costs[len(group)] for group in groups),
    )


def shortened(schedule: TrainingSchedule, epochs: int) -> TrainingSchedule:
    """Shorten a schedule, keeping the growth of the pictures; the last epoch uses their own side."""
    sides = schedule.sides
    if not sides:
        return replace(schedule, epochs=epochs)
    kept = [sides[number * len(sides) // epochs] for number in range(epochs - 1)]
    return replace(schedule, epochs=epochs, sides=(*kept, sides[-1]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m splitplace.workshop.recipes.comparison",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--application", choices=sorted(RECIPES), default="fashionmnist")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data set")
    parser.add_argument("--images", type=int, default=10_000, help="number of training images")
    parser.add_argument("--validation", type=int, default=5_000, help="number of validation images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--branches", type=int, help="default: as many as the application has")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--checkpoints",
        type=Path,
        default=Settings().paths.trainings / "comparison",
        help="folder from which an interrupted comparison resumes",
    )
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    console = Console(width=150)
    recipe = RECIPES[arguments.application]
    if arguments.branches:
        recipe = replace(recipe, branches=arguments.branches)
    try:
        data = load_published(recipe.dataset, arguments.data)
    except DatasetError as error:
        console.print(f"error: {error}", style="red")
        return 1
    with Progress(console=console) as progress:
        trial = Trial(
            recipe=recipe,
            schedule=replace(shortened(recipe.schedule, arguments.epochs), seed=arguments.seed),
            training=data.training.first(arguments.images),
            validation=data.validation.first(arguments.validation),
            checkpoints=arguments.checkpoints / recipe.name / f"{recipe.branches}-branches",
            progress=progress,
        )
        rows = compare(trial)
    console.print(table(rows, f"{recipe.title}, {arguments.images} images, {arguments.epochs} epochs"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
