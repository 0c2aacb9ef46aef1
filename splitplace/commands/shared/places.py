"""Options and settings about where files lie (docs/files.md)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typing_extensions import override

from splitplace.bus.settings import StoreSettings
from splitplace.errors import ConfigurationError
from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore, StoreError
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


def check_writable(store: ModelStore) -> None:
    """Raise StoreError where nothing can be written, before a command has worked for long."""
    there = next(folder for folder in (store.root, *store.root.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise StoreError(
            store.root, f"cannot be made, because {there} is no folder: name another with --store"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise StoreError(store.root, "cannot be written to: name another folder with --store")


def stored_applications(store: Path | None) -> Sequence[Application]:
    """Return the applications of `--store`, else those that can be used here. Raises ConfigurationError."""
    try:
        return model_store(store).usable()[0]
    except StoreError as error:
        raise ConfigurationError(str(error)) from error


def paths(state_dir: Path | None = None) -> Paths:
    """Return where files lie, by `--state-dir` or else the settings. Raises ConfigurationError."""
    return _settings(state_dir).paths


class _PlaceSettings(StoreSettings):
    """Where files lie. Needs no user of the broker: a device that has joined may have none for commands."""

    @classmethod
    @override
    def _with_credentials(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data


def _settings(state_dir: Path | None = None) -> StoreSettings:
    return _PlaceSettings.load() if state_dir is None else _PlaceSettings.load(state_dir=state_dir)
