"""CIFAR-10 and CIFAR-100 in both published versions: pickled by Python 2, and binary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from splitplace.workshop.datasets.parts import Dataset, DatasetError, Published, Subset
from splitplace.workshop.datasets.plain_pickle import PlainArray, PlainPickleError, load_plain_pickle

_Kind = TypeVar("_Kind")
_TEN_TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))
_PYTHON = {"cifar10": (_TEN_TRAINING, ("test_batch",)), "cifar100": (("train",), ("test",))}
_FOLDERS = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
}
_LABELS = {"cifar10": b"labels", "cifar100": b"fine_labels"}
_LABEL_BYTES = {"cifar10": 1, "cifar100": 2}
"""What stands before an image in the binary version: of two labels the second is the fine one."""
_BESIDE_IMAGES_BYTES = 16_000_000
"""More than names and labels take in a pickled file."""


@dataclass(frozen=True)
class CifarFiles:
    """Where a data set lies."""

    training: Sequence[Path]
    test: Sequence[Path]
    pickled: bool


def find_cifar(folder: Path, name: str) -> CifarFiles | None:
    """The files of `cifar10` or `cifar100` in a folder, or in the folder that the published archive makes."""
    for place in (folder, *(folder / inner for inner in _FOLDERS[name])):
        for suffix in ("", ".bin"):
            training, test = ([place / f"{stem}{suffix}" for stem in stems] for stems in _PYTHON[name])
            if all(path.is_file() for path in (*training, *test)):
                return CifarFiles(training, test, pickled=not suffix)
    return None


def read_cifar(files: CifarFiles, facts: Published) -> Dataset:
    """Reads the files that were found.

    Raises:
        DatasetError: They are not what `facts` says.
    """
    read = _read_pickled if files.pickled else _read_binary
    training = [
        read(path, facts, facts.training_file_images // len(files.training)) for path in files.training
    ]
    test = [read(path, facts, facts.test_images) for path in files.test]
    return facts.dataset(_joined(training), _joined(test))


def _joined(subsets: Sequence[Subset]) -> Subset:
    return Subset(
        np.concatenate([subset.images for subset in subsets]),
        np.concatenate([subset.labels for subset in subsets]),
    )


def _read_pickled(path: Path, facts: Published, count: int) -> Subset:
    pixels = int(np.prod(facts.shape))
    content = _bytes(path, count * pixels + _BESIDE_IMAGES_BYTES)
    try:
        stored = load_plain_pickle(content)
        images = _member(stored, b"data", PlainArray).array.reshape(count, *facts.shape)
        labels = np.array(_member(stored, _LABELS[facts.name], list), np.uint8).reshape(count)
    except (PlainPickleError, ValueError, OverflowError, TypeError) as error:
        raise DatasetError(f"{path}: is not a file of {facts.name}: {error}") from error
    return Subset(images, labels)


def _member(stored: object, key: bytes, kind: type[_Kind]) -> _Kind:
    member = stored.get(key) if isinstance(stored, Mapping) else None
    if not isinstance(member, kind):
        raise PlainPickleError(f"has no {key.decode()} of the expected kind")
    return member


def _read_binary(path: Path, facts: Published, count: int) -> Subset:
    before = _LABEL_BYTES[facts.name]
    record = before + int(np.prod(facts.shape))
    content = _bytes(path, count * record)
    if len(content) != count * record:
        raise DatasetError(f"{path}: has {len(content)} bytes, expected {count} records of {record}")
    records = np.frombuffer(content, np.uint8).reshape(count, record)
    return Subset(records[:, before:].reshape(count, *facts.shape), records[:, before - 1])


def _bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    if len(content) > most:
        raise DatasetError(f"{path}: is larger than the {most} bytes it may have")
    return content
