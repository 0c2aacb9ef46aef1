"""Options and settings about where files lie (docs/files.md)."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from splitplace.bus.settings import StoreSettings
from splitplace.commands.shared.exit_codes import ExitCode
from splitplace.commands.shared.options import explain, fail
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import Paths

StoreOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the only networks to use.", show_default="the shipped ones and your own"),
]
StateDirOption = Annotated[
    Path | None,
    typer.Option(help="Folder for all that is kept.", show_default="where the platform keeps state"),
]


def model_store(store: Path | None) -> ModelStore:
    """Return the networks of `--store`, else those that the settings name. Exits where settings are wrong."""
    return ModelStore(store) if store else _settings().model_store


def paths(state_dir: Path | None = None) -> Paths:
    """Return where files lie, by `--state-dir` or else the settings. Exits where settings are wrong."""
    return _settings(state_dir).paths


def _settings(state_dir: Path | None = None) -> StoreSettings:
    try:
        return StoreSettings() if state_dir is None else StoreSettings(state_dir=state_dir)
    except ValidationError as error:
        fail(explain(error), ExitCode.USAGE)
