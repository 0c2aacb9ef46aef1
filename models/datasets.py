"""Reads MNIST (and data sets in its format) from a folder that the user has; nothing is downloaded."""

import gzip
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

SIDE = 28
TRAINING_FILE_IMAGES = 60_000
TEST_IMAGES = 10_000
VALIDATION_IMAGES = 10_000
"""The first images of the training file are held out: the shipped samples are taken from them."""

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]

_IDX_UBYTE = 0x08
_NPY_HEADER_BYTES = 4096


class DatasetError(Exception):
    """A data set that is missing or is not what it should be."""


@dataclass(frozen=True)
class Subset:
    """Images `uint8[N, 1, 28, 28]` and their labels `uint8[N]`."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """The three parts that never mix: train on one, choose by the second, report on the third."""

    training: Subset
    validation: Subset
    test: Subset


def load_mnist(folder: Path) -> Dataset:
    """Reads MNIST from `mnist.npz` (arrays `xtr ytr xte yte`) or the four published IDX files (also `.gz`).

    Raises:
        DatasetError: Neither is there, or a file is not complete MNIST.
    """
    archive = folder / "mnist.npz"
    arrays = _read_npz(archive) if archive.exists() else _read_idx_folder(folder)
    training_images, training_labels, test_images, test_labels = arrays
    held_out = slice(0, VALIDATION_IMAGES)
    rest = slice(VALIDATION_IMAGES, None)
    return Dataset(
        training=_subset(training_images[rest], training_labels[rest]),
        validation=_subset(training_images[held_out], training_labels[held_out]),
        test=_subset(test_images, test_labels),
    )


def _subset(images: Images, labels: Labels) -> Subset:
    if labels.max() > 9:  # noqa: PLR2004 - ten digits
        msg = f"labels go up to {labels.max()}, expected 0 to 9"
        raise DatasetError(msg)
    return Subset(images[:, np.newaxis], labels)


def _shapes() -> tuple[tuple[int, ...], ...]:
    pixels = (SIDE, SIDE)
    return (
        (TRAINING_FILE_IMAGES, *pixels),
        (TRAINING_FILE_IMAGES,),
        (TEST_IMAGES, *pixels),
        (TEST_IMAGES,),
    )


def _read_npz(path: Path) -> tuple[NDArray[np.uint8], ...]:
    arrays = []
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key, shape in zip(("xtr", "ytr", "xte", "yte"), _shapes(), strict=True):
                stored_bytes = archive.zip.getinfo(f"{key}.npy").file_size
                if stored_bytes > np.prod(shape) + _NPY_HEADER_BYTES:
                    msg = f"{path}: {key} has {stored_bytes} bytes, more than MNIST has"
                    raise DatasetError(msg)
                array = archive[key]
                if array.dtype != np.uint8 or array.shape != shape:
                    msg = f"{path}: {key} is {array.dtype}{list(array.shape)}, expected uint8{list(shape)}"
                    raise DatasetError(msg)
                arrays.append(array)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        msg = f"{path}: cannot be read: {error}"
        raise DatasetError(msg) from error
    return tuple(arrays)


def _read_idx_folder(folder: Path) -> tuple[NDArray[np.uint8], ...]:
    stems = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    return tuple(
        _read_idx(_find_idx(folder, stem, len(shape)), shape)
        for stem, shape in zip(stems, _shapes(), strict=True)
    )


def _find_idx(folder: Path, stem: str, rank: int) -> Path:
    for name in (f"{stem}-idx{rank}-ubyte", f"{stem}.idx{rank}-ubyte"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.exists():
                return path
    msg = f"{folder} holds neither mnist.npz nor {stem}-idx{rank}-ubyte(.gz)"
    raise DatasetError(msg)


def _read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    header = struct.pack(f">HBB{len(shape)}I", 0, _IDX_UBYTE, len(shape), *shape)
    expected = len(header) + int(np.prod(shape))
    try:
        with _open(path) as file:
            content = file.read(expected + 1)  # one more than there may be: bounds what is decompressed
    except (OSError, EOFError) as error:
        msg = f"{path}: cannot be read: {error}"
        raise DatasetError(msg) from error
    if not content.startswith(header) or len(content) != expected:
        msg = f"{path}: is not an IDX file of uint8{list(shape)}"
        raise DatasetError(msg)
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _open(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
