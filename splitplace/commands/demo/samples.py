"""Labelled images for the sensors: those of the application, else from a data set of the user's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.datasets import PUBLISHED, DatasetError, load_held_out

SAMPLES = "samples.npz"
IMAGES = 600
"""Taken of a data set; never of its test part."""

USUAL_DATA = Path("../shared/data")
"""Where data sets are looked for when no folder is given."""


def find_samples(
    store: ModelStore, applications: Sequence[Application], data: Path | None, folder: Path
) -> dict[str, Path]:
    """A file of images and labels for each application that has any, by its name.

    Args:
        store: may hold samples beside the applications.
        applications: that are wanted.
        data: folder with data sets; `USUAL_DATA` where not given.
        folder: where images of data sets are written to.

    Raises:
        DatasetError: A folder was given, and what it holds of a data set is broken.
    """
    found = {}
    for application in applications:
        shipped = store.folder(application.name) / SAMPLES
        if shipped.is_file():
            found[application.name] = shipped
        elif application.name in PUBLISHED:
            taken = _take(application.name, data, folder / f"samples-{application.name}.npz")
            if taken is not None:
                found[application.name] = taken
    return found


def _take(name: str, data: Path | None, file: Path) -> Path | None:
    """Held-out images of a data set; None where the usual folder has none."""
    try:
        samples = load_held_out(name, data or USUAL_DATA, IMAGES)
    except DatasetError:
        if data is not None:
            raise
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, images=samples.images, labels=samples.labels)
    return file
