"""Options and settings about where files lie (docs/files.md)."""

from pathlib import Path
from typing import Annotated

import typer

from splitplace.bus.settings import StoreSettings
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import Paths

StoreOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the only networks to use.", show_default="the shipped ones and your own"),
]
WrittenStoreOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of networks to write the application into.", show_default="the folder of your own"
    ),
]
StateDirOption = Annotated[
    Path | None,
    typer.Option(help="Folder of all state.", show_default="where the platform keeps state"),
]


def model_store(store: Path | None) -> ModelStore:
    """Return the networks of `--store`, else those that the settings name. Raises ConfigurationError."""
    return ModelStore(store) if store else _settings().model_store


def paths(state_dir: Path | None = None) -> Paths:
    """Return where files lie, by `--state-dir` or else the settings. Raises ConfigurationError."""
    return _settings(state_dir).paths


def _settings(state_dir: Path | None = None) -> StoreSettings:
    return StoreSettings.load() if state_dir is None else StoreSettings.load(state_dir=state_dir)
