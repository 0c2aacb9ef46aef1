"""Data sets in MNIST's format: four IDX files, plain or compressed by gzip."""

import gzip
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from splitplace.workshop.datasets.dataset import Dataset, DatasetError, Published, Subset

_UBYTE = 0x08


def read_idx(folder: Path, facts: Published) -> Dataset:
    """Read `{train,t10k}-{images-idx3,labels-idx1}-ubyte`, each plain or with `.gz`.

    Raises:
        DatasetError: A file is missing or does not match `facts`.
    """
    _, *pixels = facts.shape
    parts = []
    for part, count in (("train", facts.training_file_images), ("t10k", facts.test_images)):
        images = _read(_find(folder, f"{part}-images", 3), (count, *pixels))
        labels = _read(_find(folder, f"{part}-labels", 1), (count,))
        parts.append(Subset(images[:, np.newaxis], labels))
    return facts.dataset(*parts)


def has_idx(folder: Path) -> bool:
    """Whether a folder holds files in this format."""
    return any(path.exists() for path in _names(folder, "train-images", 3))


def _names(folder: Path, stem: str, rank: int) -> tuple[Path, ...]:
    names = (f"{stem}-idx{rank}-ubyte", f"{stem}.idx{rank}-ubyte")
    return tuple(folder / f"{name}{suffix}" for name in names for suffix in ("", ".gz"))


def _find(folder: Path, stem: str, rank: int) -> Path:
    for path in _names(folder, stem, rank):
        if path.exists():
            return path
    raise DatasetError(f"{folder} has no {stem}-idx{rank}-ubyte(.gz)")


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    header = struct.pack(f">HBB{len(shape)}I", 0, _UBYTE, len(shape), *shape)
    expected = len(header) + int(np.prod(shape))
    try:
        with _open(path) as file:
            content = file.read(expected + 1)  # one byte more than expected: bounds the decompression
    except (OSError, EOFError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    if not content.startswith(header) or len(content) != expected:
        raise DatasetError(f"{path}: is not an IDX file of uint8{list(shape)}")
    pixels = np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
    return pixels.copy()  # torch warns about read-only arrays


def _open(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
