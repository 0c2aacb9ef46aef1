"""Compare SplitNet's groups and tree (the paper's reference 16) with our groups and branches.

`python -m splitplace.workshop.recipes.splitnet_trial --data DIR --images 2000 --epochs 3 --seeds 0,1`

A small residual network on FashionMNIST. All networks are trained for the same number of epochs, and all but
the whole one also on the whole one's answers. Accuracy is that of validation images.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from splitplace.bus.settings import Settings
from splitplace.workshop.compression.pruning import flops_per_image
from splitplace.workshop.compression.split_tree import SplitNet
from splitplace.workshop.datasets import DatasetError, Subset, load_published
from splitplace.workshop.networks.designs import ResNet
from splitplace.workshop.networks.resnet_v2 import ResNetV2
from splitplace.workshop.recipes.recipes import RECIPES, Recipe
from splitplace.workshop.training.loop import (
    Augmentation,
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
    index_groups,
    shares_of_answers,
)

RECIPE = replace(
    RECIPES["fashionmnist"],
    design=ResNet((24, 64, 128), (1, 2, 2), "halving"),
    branch_design=ResNet((16, 32, 64), (1, 2, 2), "halving"),
)
"""The shipped small network with a quarter of the pixels after its stem: the cheapest one to train."""
TRUNK = 1
"""Blocks that the branches of the tree share."""
FINE_TUNING = 1
"""Epochs of the tree after it was cut; its other epochs are those with the regularisation."""
SHIFTS = Augmentation(degrees=0, scale=0, shift_pixels=2, mirror=True)


@dataclass(frozen=True)
class Outcome:
    """One trained network."""

    method: str
    seed: int
    groups: Groups
    accuracy: float
    wrong_branch: float
    """Share of images for which the winning class belongs to another branch than the right class."""
    megaflops: float
    """Operations of the largest branch with all it needs, in millions."""
    kilobytes: float
    """Weights of that branch."""


@dataclass(frozen=True)
class Trial:
    """What all trainings of one seed have in common."""

    recipe: Recipe
    epochs: int
    seed: int
    training: Subset
    validation: Subset
    checkpoints: Path
    progress: Progress
    batch: int = 64

    def train(
        self, name: str, network: nn.Module, loss: Loss, epochs: int, origin: nn.Module | None = None
    ) -> None:
        """Train a network in place."""
        train(
            network,
            loss,
            TrainingSchedule(epochs=epochs, seed=self.seed, batch=self.batch),
            training=self.training,
            validation=self.validation,
            augmentation=SHIFTS,
            checkpoint=self.checkpoints / f"{name}-{self.seed}-{len(self.training)}-{self.epochs}.pt",
            progress=self.progress,
            origin="" if origin is None else digest_of_weights(origin),
        )

    def outcome(self, method: str, network: nn.Module, groups: Groups, parts: Sequence[nn.Module]) -> Outcome:
        """Measure a trained network; `parts` are its branches, each as a network of its own."""
        accuracy, wrong_branch = shares_of_answers(network, groups, self.validation)
        example = torch.from_numpy(self.validation.images[:1])
        return Outcome(
            method,
            self.seed,
            groups,
            accuracy,
            wrong_branch,
            megaflops=max(flops_per_image(part, example) for part in parts) / 1e6,
            kilobytes=max(sum(weight.numel() for weight in part.parameters()) for part in parts) * 4 / 1e3,
        )


def compare(trial: Trial) -> list[Outcome]:
    """Train the whole network, SplitNet's tree, and our branches by three groupings."""
    recipe, classes = trial.recipe, len(trial.recipe.labels)
    torch.manual_seed(trial.seed)
    whole = _residual(recipe)
    trial.train("whole", whole, branch_loss(whole), trial.epochs)
    outcomes = [trial.outcome("whole", whole, (tuple(range(classes)),), [whole])]

    tree, groups = _splitnet(trial, whole)
    outcomes.append(trial.outcome("SplitNet: its groups, its tree", tree, groups, list(tree.branches)))

    similarity = class_similarity(in_batches(whole.features, trial.training.images), trial.training.labels)
    for name, method, grouping in (
        ("similar", "our groups, our branches", group_classes(similarity, recipe.branches)),
        ("splitnet", "SplitNet's groups, our branches", groups),
        ("index", "groups by index, our branches", index_groups(classes, recipe.branches)),
    ):
        torch.manual_seed(trial.seed)
        branches = Branches(grouping, recipe.branch)
        trial.train(f"branches-{name}", branches, distillation(branches, whole), trial.epochs, whole)
        outcomes.append(trial.outcome(method, branches, grouping, list(branches.branches)))
    return outcomes


def _splitnet(trial: Trial, whole: ResNetV2) -> tuple[Branches, Groups]:
    """Learn the groups from random weights, cut, and fine-tune the tree."""
    recipe = trial.recipe
    torch.manual_seed(trial.seed)
    splitting = SplitNet(_residual(recipe), recipe.branches, TRUNK)
    imitate = distillation(splitting, whole)
    trial.train(
        "splitnet",
        splitting,
        lambda images, labels: imitate(images, labels) + splitting.penalty(),
        trial.epochs - FINE_TUNING,
        whole,
    )
    tree = splitting.split()
    trial.train("tree", tree, distillation(tree, whole), FINE_TUNING, splitting)
    return tree, tree.groups


def _residual(recipe: Recipe) -> ResNetV2:
    network = recipe.whole()
    if not isinstance(network, ResNetV2):
        raise TypeError("SplitNet's tree is cut from a residual network")
    return network


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a Markdown table: a line for each method, means over seeds ± standard deviation."""
    lines = [
        "| network | accuracy | wrong branch | MFLOPs | weights kB | groups of the first seed |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for method in dict.fromkeys(outcome.method for outcome in outcomes):
        same = [outcome for outcome in outcomes if outcome.method == method]
        groups = " · ".join(" ".join(map(str, group)) for group in same[0].groups)
        lines.append(
            f"| {method} | {_spread([each.accuracy for each in same])} "
            f"| {_spread([each.wrong_branch for each in same])} "
            f"| {max(each.megaflops for each in same):.1f} | {max(each.kilobytes for each in same):.0f} "
            f"| {groups} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m splitplace.workshop.recipes.splitnet_trial",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with FashionMNIST")
    parser.add_argument("--images", type=int, default=2_000, help="number of training images")
    parser.add_argument("--validation", type=int, default=5_000, help="number of validation images")
    parser.add_argument("--epochs", type=int, default=3, help="at least 2")
    parser.add_argument("--seeds", default="0,1", help="numbers, joined by commas")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        default=Settings().paths.trainings / "splitnet",
        help="folder from which an interrupted comparison resumes",
    )
    arguments = parser.parse_args(argv)
    if arguments.epochs <= FINE_TUNING:
        parser.error(f"--epochs is {arguments.epochs}, expected at least {FINE_TUNING + 1}")
    torch.set_num_threads(1)
    console = Console(width=150)
    try:
        data = load_published(RECIPE.dataset, arguments.data)
    except DatasetError as error:
        console.print(f"error: {error}", style="red")
        return 1
    outcomes: list[Outcome] = []
    for seed in map(int, arguments.seeds.split(",")):
        with Progress(console=console) as progress:
            trial = Trial(
                RECIPE,
                arguments.epochs,
                seed,
                data.training.first(arguments.images),
                data.validation.first(arguments.validation),
                arguments.checkpoints,
                progress,
            )
            outcomes += compare(trial)
        console.out(table(outcomes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
