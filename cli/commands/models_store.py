"""`splitplace models list`: what needs nothing but the store itself."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bus.store import ModelStore, StoreError
from cli.exit_codes import ExitCode
from cli.options import fail, repository_folder
from messages.application import Variant
from messages.limits import MEBIBYTE

StoreOption = Annotated[Path | None, typer.Option(help="The model store.", show_default="store")]


def list_command(*, store: StoreOption = None) -> None:
    """Show what the model store holds."""
    root = store or repository_folder("store")
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


def _accuracy(variant: Variant) -> str:
    return f"{variant.accuracy:.4f}" if variant.accuracy_images else f"{variant.accuracy:.4f} (stated)"
