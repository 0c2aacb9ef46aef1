"""What a new network learns from an application that exists: labels mixed with its answers."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitplace.storage.model_store import ModelStore, sha256_of
from splitplace.storage.replace import replacing
from splitplace.workshop.datasets import Subset
from splitplace.workshop.packing.evaluation import variant_logits
from splitplace.workshop.pieces.loaded import stage_runtime

SHARE = 0.5
"""Weight of the teacher's answers; that of the labels is the rest."""


def soft_targets(store: ModelStore, teacher: str, training: Subset, folder: Path) -> NDArray[np.float32]:
    """Return the probabilities `float32[N, classes]` to learn from the training images.

    The cross entropy with them is that with the labels and that with the teacher's answers, each with its
    share. The teacher sees every image once, as it is, and its answers are kept in a file: that costs much
    less than asking it for every altered image of every epoch.

    Args:
        store: Where the teacher is.
        teacher: Application whose variant `whole` answers.
        training: The images and their labels.
        folder: Folder for the file of answers.

    Raises:
        StoreError: The store has no such application.
    """
    answers = _answers(store, teacher, training, folder)
    mixed = SHARE * answers
    mixed[np.arange(len(training)), training.labels] += 1 - SHARE
    return mixed


def version_of(store: ModelStore, teacher: str, training: Subset) -> str:
    """Return what changes with the teacher's files, or with the images that it answers.

    Raises:
        StoreError: The store has no such application.
    """
    files = "".join(file.sha256 for file in store.application(teacher).files)
    return sha256_of(files.encode() + training.images.tobytes())[:16]


def _answers(store: ModelStore, teacher: str, training: Subset, folder: Path) -> NDArray[np.float32]:
    """Return the teacher's probabilities, from the file if it has them for these images."""
    application = store.application(teacher)
    file = folder / f"answers-{teacher}-{version_of(store, teacher, training)}.npy"
    if file.exists():
        return np.asarray(np.load(file), np.float32)
    load = partial(stage_runtime, store, application)
    logits = variant_logits(application, application.variant("whole"), load, training.images)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    answers: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    with replacing(file) as opened:
        np.save(opened, answers)
    return answers
