"""`splitplace models train | build`: what needs torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, get_args

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from splitplace.commands.shared.places import WrittenStoreOption, model_store, paths
from splitplace.storage.replace import replace_file
from splitplace.workshop.datasets import load_published
from splitplace.workshop.recipes.build import build, train_part
from splitplace.workshop.recipes.recipes import RECIPES, Recipe, RecipePart
from splitplace.workshop.recipes.trainings import Workbench, default_device
from splitplace.workshop.report.tables import variants_table
from splitplace.workshop.report.training_report import training_report

RecipeArgument = Annotated[str, typer.Argument(metavar="APPLICATION", help=f"One of {', '.join(RECIPES)}.")]
DataOption = Annotated[Path, typer.Option(help="Folder with the data set's files. Nothing is downloaded.")]
CheckpointsOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of trainings. Resumes interrupted trainings and skips finished ones.",
        show_default="trainings in the state folder",
    ),
]
EpochsOption = Annotated[int | None, typer.Option(min=1, help="Fewer epochs than the recipe's, for a try.")]
SeedOption = Annotated[int | None, typer.Option(help="Another seed than the recipe's.")]
DeviceOption = Annotated[str, typer.Option(help="Where torch computes. [default: a GPU where there is one]")]


def train_command(
    application: RecipeArgument,
    *,
    data: DataOption,
    part: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(RecipePart))}.")] = "whole",
    checkpoints: CheckpointsOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "",
) -> None:
    """Train one network of a shipped application.

    The whole network, which the other parts learn from, is trained first unless its checkpoint is finished.
    """
    chosen = next((known for known in get_args(RecipePart) if known == part), None)
    if chosen is None:
        raise typer.BadParameter(part, param_hint="--part")
    with _bench(_recipe(application, epochs, seed), data, checkpoints, device) as bench:
        train_part(bench, chosen)


def build_command(
    application: RecipeArgument,
    *,
    data: DataOption,
    store: WrittenStoreOption = None,
    checkpoints: CheckpointsOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "",
) -> None:
    """Build a shipped application: train, split, export, measure, pack."""
    models = model_store(store)
    recipe = _recipe(application, epochs, seed)
    with _bench(recipe, data, checkpoints, device) as bench:
        built = build(bench, models)
    console = Console()
    console.print(variants_table(built.application, built.results))
    folder = models.folder(built.application.name)
    replace_file(folder / "TRAINING.md", training_report(built, recipe).encode())
    console.print(f"written: {folder}", markup=False)


def _recipe(name: str, epochs: int | None, seed: int | None) -> Recipe:
    if name not in RECIPES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(RECIPES)}")
    return RECIPES[name].with_budget(epochs=epochs, seed=seed)


@contextmanager
def _bench(recipe: Recipe, data: Path, checkpoints: Path | None, device: str) -> Iterator[Workbench]:
    """Read the data, and show progress inside the block."""
    torch.set_num_threads(1)
    console = Console()
    dataset = load_published(recipe.dataset, data)
    with Progress(console=console) as progress:
        yield Workbench(
            recipe,
            dataset,
            (checkpoints or paths().trainings) / recipe.name,
            progress,
            model_store(None),
            device or default_device(),
        )
