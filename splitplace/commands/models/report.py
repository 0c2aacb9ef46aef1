"""`splitplace models report`: a page with pictures about what the store holds."""

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from splitplace.commands.shared.places import StoreOption, model_store, paths
from splitplace.errors import MissingExtraError
from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore, StoreError
from splitplace.storage.replace import replace_file
from splitplace.workshop.datasets import DatasetError
from splitplace.workshop.pieces.loaded import stage_model, stage_runtime
from splitplace.workshop.report.cuts import DiagramError, cut_diagrams
from splitplace.workshop.report.groups import (
    GroupConfusion,
    group_confusions,
    pictures_of,
    several_sinks,
)

if TYPE_CHECKING:
    from splitplace.workshop.report.page import Chapter

PAGE = "index.html"


def report_command(
    applications: Annotated[
        list[str] | None, typer.Argument(metavar="APPLICATION...", help="Only these. [default: all]")
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the page.", show_default="pages/models in the state folder"),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with labelled test pictures, to count which branch wins; may be repeated."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Write a page with pictures: accuracy against time, groups, cuts, sizes."""
    console = Console()
    models = model_store(store)
    folders = data or []
    try:
        from splitplace.workshop.report.page import report_page  # noqa: PLC0415 - only here matplotlib is needed
    except ModuleNotFoundError as error:
        raise MissingExtraError("splitplace models report", str(error.name), "experiments") from error
    chosen = [models.application(name) for name in applications or ()] or list(models.applications())
    if not chosen:
        raise StoreError(models.root, "holds no application")
    chapters = [_chapter(models, application, folders) for application in chosen]
    for note in (note for chapter in chapters for note in chapter.notes):
        console.print(note, style="yellow", markup=False)
    page = report_page(chapters, _command(applications or (), folders, store))
    file = (out or paths().pages / "models") / PAGE
    replace_file(file, page.encode())
    console.print(f"written: {file}", markup=False)


def _chapter(models: ModelStore, application: Application, folders: Sequence[Path]) -> "Chapter":
    from splitplace.workshop.report.page import Chapter  # noqa: PLC0415 - needs matplotlib

    notes = []
    diagrams = {}
    try:
        diagrams = dict(cut_diagrams(application, partial(stage_model, models, application)))
    except DiagramError as error:
        notes.append(f"No drawing of the cuts: {error}.")
    confusions: tuple[GroupConfusion, ...] = ()
    if several_sinks(application) and folders:
        try:
            pictures = pictures_of(application, folders)
            load = partial(stage_runtime, models, application)
            confusions = tuple(group_confusions(application, load, pictures))
        except DatasetError as error:
            notes.append(f"Which branch wins for {application.name} was not counted: {error}")
    return Chapter(application, diagrams, confusions, notes)


def _command(applications: Sequence[str], folders: Sequence[Path], store: Path | None) -> str:
    """What was typed, so that a reader can write the page again."""
    options = [part for folder in folders for part in ("--data", str(folder))]
    place = ["--store", str(store)] if store else []
    return shlex.join(["splitplace", "models", "report", *applications, *options, *place])
