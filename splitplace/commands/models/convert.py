"""`splitplace models convert`: applications of an earlier version, in pieces."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from splitplace.commands.shared.ending import ended_by_sigterm
from splitplace.commands.shared.places import StoreOption, model_store
from splitplace.commands.shared.progress import telling
from splitplace.messages.application import Application
from splitplace.messages.limits import MEBIBYTE
from splitplace.storage.model_store import ModelStore, StoreError
from splitplace.workshop.packing.convert import converted
from splitplace.workshop.packing.earlier import EarlierApplication, earlier_application, earlier_file


def convert_command(
    application: Annotated[
        str | None, typer.Argument(help="Name of an application. [default: all that need it]")
    ] = None,
    *,
    store: StoreOption = None,
) -> None:
    """Bring applications that SplitPlace 0.2 wrote into the present form.

    Networks are cut into pieces. Accuracies and times are kept. The pieces are compared with the files that
    they replace. An end at any moment leaves the application as it was or converted; then the command can be
    repeated.
    """
    models = model_store(store)
    console = Console()
    for name in [application] if application is not None else models.names():
        earlier = earlier_application(models, name)
        if earlier.is_in_pieces:
            if application is not None:
                console.print(f"{name} is in pieces already", markup=False)
        elif models.is_read_only(name):
            raise StoreError(
                models.folder(name),
                "can only be read; name its folder with --store to convert what lies there",
            )
        else:
            console.print(_said(_convert(models, earlier)), markup=False)


def _convert(models: ModelStore, earlier: EarlierApplication) -> Application:
    with (
        telling(earlier.name) as told,
        ended_by_sigterm(),
        TemporaryDirectory(prefix="splitplace-") as folder,
    ):
        done = converted(earlier, partial(earlier_file, models, earlier.name), Path(folder), told)
        models.save(done, ((Path(folder) / file.sha256).read_bytes() for file in done.files))
    return done


def _said(application: Application) -> str:
    pieces = sum(len(chain.chain.pieces) for chain in application.chains)
    size = sum(file.file_bytes for file in application.files) / MEBIBYTE
    return (
        f"converted: {application.name}, {len(application.fragments)} fragments of {pieces} pieces, "
        f"{size:.1f} MB; restart what uses it"
    )
