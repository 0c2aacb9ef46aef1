"""Read a folder of pictures: a subfolder for each class, named as the class, with PNG, JPEG or WebP files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitplace.messages.pictures import PictureInput
from splitplace.messages.tensors import TensorSpec
from splitplace.services.gateway.pictures import decode
from splitplace.services.gateway.refusals import TaskRefusedError
from splitplace.workshop.datasets.dataset import Dataset, DatasetError, Subset

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
MAX_BYTES = 8 << 30
"""Limit for the decoded pictures together."""
_TRAINING_AND_VALIDATION = (0.8, 0.1)
"""Shares of each class's pictures for training and validation; the rest is for the test."""


def read_image_folder(
    folder: Path, labels: Sequence[str], shape: tuple[int, int, int], how: PictureInput | None = None
) -> Subset:
    """Read every picture, decoded and fitted by the gateway's own code.

    Args:
        folder: Folder with a subfolder for each class.
        labels: Names of the classes, in the order of their numbers. A class may have no folder.
        shape: Channels (1 or 3), height and width of the result.
        how: How pictures are fitted; None = stretched.

    Raises:
        DatasetError: There is no picture, a subfolder is not named like a class, or a file is not a picture.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    if not folder.is_dir():
        raise DatasetError(
            f"{folder} is not a folder; expected one with a subfolder of pictures for each class"
        )
    unknown = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in numbers)
    if unknown:
        raise DatasetError(
            f"{folder} has subfolders that are not named like a class: {', '.join(unknown[:5])}"
        )
    files = [
        (path, numbers[label])
        for label in labels
        for path in sorted((folder / label).glob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise DatasetError(
            f"{folder} has no pictures; expected CLASS/NAME.png (or .jpg, .webp), classes like {labels[0]!r}"
        )
    if len(files) * int(np.prod(shape)) > MAX_BYTES:
        raise DatasetError(f"{folder}: {len(files)} pictures of {shape} take more than {MAX_BYTES} bytes")
    spec = TensorSpec(dtype="uint8", shape=shape)
    images = np.stack([_picture(path, spec, how or PictureInput()) for path, _ in files])
    return Subset(images, np.array([number for _, number in files], np.int64))


def split(subset: Subset, seed: int) -> Dataset:
    """Divide at random into training, validation and test, each with its share of every class."""
    random = np.random.default_rng(seed)
    parts: tuple[list[NDArray[np.intp]], ...] = ([], [], [])
    for label in np.unique(subset.labels):
        own = random.permutation(np.flatnonzero(subset.labels == label))
        ends = np.round(np.cumsum(_TRAINING_AND_VALIDATION) * len(own)).astype(int)
        for part, chosen in zip(parts, np.split(own, ends), strict=True):
            part.append(chosen)
    subsets = (np.sort(np.concatenate(part)) for part in parts)
    return Dataset(*(Subset(subset.images[chosen], subset.labels[chosen]) for chosen in subsets))


def _picture(path: Path, spec: TensorSpec, how: PictureInput) -> NDArray[np.uint8]:
    try:
        pixels: NDArray[np.uint8] = decode((path.read_bytes(),), spec, how).inputs[0]
    except (OSError, TaskRefusedError) as error:
        raise DatasetError(f"{path}: is not a readable picture: {error}") from error
    return pixels
