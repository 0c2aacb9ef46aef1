"""`splitplace models list | export | rollback | remove`: the commands that need nothing but the store."""

import sys
import zipfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from splitplace.commands.shared.output import JsonOption, print_json
from splitplace.commands.shared.places import StoreOption, model_store
from splitplace.messages.application import Variant
from splitplace.messages.limits import MEBIBYTE
from splitplace.policies.memory import described_bytes
from splitplace.storage.model_store import PREVIOUS, ModelStore, StoreError
from splitplace.storage.paths import SHIPPED_STORE
from splitplace.storage.replace import replacing
from splitplace.terminal import printable

ApplicationArgument = Annotated[str, typer.Argument(help="Name of an application in the store.")]


def list_command(*, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show what the model store holds, and in which folder."""
    models = model_store(store)
    applications, broken = models.usable()
    for error in broken:
        print(printable(f"not usable: {error}"), file=sys.stderr)
    if as_json:
        print_json(
            {
                "folders": models.folders,
                "applications": [
                    {"folder": models.folder(application.name), **application.model_dump(mode="json")}
                    for application in applications
                ],
            }
        )
        return
    table = Table(padding=0)
    for heading in ("application", "store", "variant"):
        table.add_column(heading, no_wrap=True)
    for heading in ("fragments", "accuracy", "ms an image", "MB of memory"):
        table.add_column(heading, justify="right", overflow="fold")
    for application in applications:
        for variant in application.variants:
            fragments = [application.fragment(stage.fragment) for stage in variant.stages]
            table.add_row(
                application.name,
                _name(models, models.folder(application.name).parent),
                variant.name,
                str(len(fragments)),
                _accuracy(variant),
                " + ".join(f"{fragment.milliseconds_per_image:.2f}" for fragment in fragments),
                " + ".join(f"{described_bytes(fragment) / MEBIBYTE:.1f}" for fragment in fragments),
            )
    console = Console()
    console.print(table)
    for folder in models.folders:
        console.print(f"{_name(models, folder)}: {folder}", markup=False, highlight=False, soft_wrap=True)


def export_command(
    application: ApplicationArgument,
    archive: Annotated[Path, typer.Argument(help="The ZIP file to write.")],
    *,
    store: StoreOption = None,
) -> None:
    """Write an application as one archive.

    Unpack it into the model store of another machine to have it there. The version that it replaced is left
    out.
    """
    models = model_store(store)
    folder, pieces = models.folder(application), models.pieces_folder(application)
    named = {pieces / file.sha256 for file in models.application(application).files}
    others = {folder / PREVIOUS, *pieces.glob("*")} - named
    try:
        with replacing(archive) as whole, zipfile.ZipFile(whole, "w") as file:  # the weights do not compress
            for path in sorted(path for path in folder.rglob("*") if path.is_file() and path not in others):
                file.write(path, path.relative_to(folder.parent))
    except OSError as error:
        raise StoreError(archive, f"cannot be written: {error.strerror}") from error
    Console().print(f"written: {archive}, {archive.stat().st_size / MEBIBYTE:.1f} MB", markup=False)


def rollback_command(application: ApplicationArgument, *, store: StoreOption = None) -> None:
    """Put back the version of an application that `models add` replaced.

    A system that runs takes it over: tasks that are under way end as they began. Given again, it brings back
    the newer version.
    """
    models = model_store(store)
    found = models.roll_back(application)
    variants = ", ".join(variant.name for variant in found.variants)
    Console().print(f"in place again: {application} with {variants}; the other version is kept", markup=False)


def remove_command(
    application: ApplicationArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
) -> None:
    """Delete an application that you added, with its fragments."""
    models = model_store(store)
    folder = models.folder(application)
    if not yes and not models.is_read_only(application):
        typer.confirm(f"delete {folder}?", abort=True)
    models.remove(application)
    Console().print(f"deleted: {folder}", markup=False)


def _name(models: ModelStore, folder: Path) -> str:
    """Return what a folder is called in the table."""
    if folder == SHIPPED_STORE:
        return "shipped"
    return "own" if len(models.folders) > 1 else "--store"


def _accuracy(variant: Variant) -> str:
    return f"{variant.accuracy:.4f}" if variant.accuracy_images else f"{variant.accuracy:.4f} (stated)"
