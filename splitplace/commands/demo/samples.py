"""Labelled images for the sensors: those of the application, or from a data set of the user."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.datasets import PUBLISHED, load_held_out

SAMPLES = "samples.npz"
IMAGES = 600
"""Images from a data set; never from its test part."""


def find_samples(
    store: ModelStore, applications: Sequence[Application], data: Path | None, folder: Path
) -> dict[str, Path]:
    """Return a file of images and labels for each application that has any, by its name.

    Args:
        store: Holds samples beside some applications.
        applications: The applications that are wanted.
        data: Folder of data sets, for applications without samples. None leaves these out.
        folder: Where images from data sets are written to.

    Raises:
        DatasetError: `data` does not hold a data set that is needed, or a broken one.
    """
    found = {}
    for application in applications:
        stored = [folder / application.name / SAMPLES for folder in store.folders]
        stored = [file for file in stored if file.is_file()]
        if stored:
            found[application.name] = stored[0]
        elif data is not None and application.name in PUBLISHED:
            file = folder / f"samples-{application.name}.npz"
            _extract(application.name, data, file)
            found[application.name] = file
    return found


def _extract(name: str, data: Path, file: Path) -> None:
    """Write held-out images of a data set to a file. Raises DatasetError."""
    samples = load_held_out(name, data, IMAGES)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, images=samples.images, labels=samples.labels)
