"""`splitplace models list | export | remove`: what needs nothing but the store itself."""

import shutil
import zipfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from splitplace.commands.shared.exit_codes import ExitCode
from splitplace.commands.shared.options import fail
from splitplace.messages.application import Variant
from splitplace.messages.limits import MEBIBYTE
from splitplace.storage.model_store import ModelStore, StoreError
from splitplace.storage.shipped import default_store

ApplicationArgument = Annotated[str, typer.Argument(help="Name of an application in the store.")]
StoreOption = Annotated[Path | None, typer.Option(help="The model store.", show_default="store")]


def list_command(*, store: StoreOption = None) -> None:
    """Show what the model store holds."""
    root = store or default_store()
    try:
        applications = ModelStore(root).applications()
    except StoreError as error:
        fail(str(error), ExitCode.PROBLEM)
    table = Table("application", "variant", title=str(root))
    for heading in ("fragments", "accuracy", "ms an image", "MB of memory"):
        table.add_column(heading, justify="right")
    for application in applications:
        for variant in application.variants:
            fragments = [application.fragment(stage.fragment) for stage in variant.stages]
            table.add_row(
                application.name,
                variant.name,
                str(len(fragments)),
                _accuracy(variant),
                " + ".join(f"{fragment.milliseconds_per_image:.2f}" for fragment in fragments),
                " + ".join(f"{fragment.peak_memory_bytes / MEBIBYTE:.1f}" for fragment in fragments),
            )
    Console().print(table)


def export_command(
    application: ApplicationArgument,
    archive: Annotated[Path, typer.Argument(help="The ZIP file to write.")],
    *,
    store: StoreOption = None,
) -> None:
    """Write an application as one archive.

    Unpacked into the model store of another machine it is there.
    """
    folder = _folder(application, store)
    with zipfile.ZipFile(archive, "w") as file:  # the weights do not compress
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file.write(path, path.relative_to(folder.parent))
    Console().print(f"written: {archive}, {archive.stat().st_size / MEBIBYTE:.1f} MB")


def remove_command(
    application: ApplicationArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
) -> None:
    """Delete an application and its fragments from the store."""
    folder = _folder(application, store)
    if not yes:
        typer.confirm(f"delete {folder}?", abort=True)
    shutil.rmtree(folder)
    Console().print(f"deleted: {folder}")


def _folder(application: str, store: Path | None) -> Path:
    """The application's folder in the store. Exits if it is not there."""
    root = store or default_store()
    try:
        return root / ModelStore(root).application(application).name
    except StoreError as error:
        fail(str(error), ExitCode.PROBLEM)


def _accuracy(variant: Variant) -> str:
    return f"{variant.accuracy:.4f}" if variant.accuracy_images else f"{variant.accuracy:.4f} (stated)"
