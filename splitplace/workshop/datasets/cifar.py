"""CIFAR-10 and CIFAR-100 in the published binary version. The Python version is a pickle and is not read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splitplace.workshop.datasets.dataset import Dataset, DatasetError, Published, Subset

_TEN_TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))
_STEMS = {"cifar10": (_TEN_TRAINING, ("test_batch",)), "cifar100": (("train",), ("test",))}
"""Names of the training and test files, without their suffix."""
_FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
_PYTHON_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
_LABEL_BYTES = {"cifar10": 1, "cifar100": 2}
"""Bytes before each image: its label; for CIFAR-100 the coarse label and then the fine one, which is used."""


@dataclass(frozen=True)
class CifarFiles:
    """The files of a data set."""

    training: Sequence[Path]
    test: Sequence[Path]


def find_cifar(folder: Path, name: str) -> CifarFiles | None:
    """Find the files of `cifar10` or `cifar100` in a folder, or in the archive's own folder inside it."""
    for place in (folder, folder / _FOLDERS[name]):
        training, test = ([place / f"{stem}.bin" for stem in stems] for stems in _STEMS[name])
        if all(path.is_file() for path in (*training, *test)):
            return CifarFiles(training, test)
    return None


def has_python_version(folder: Path, name: str) -> bool:
    """Whether the Python version is there, in a folder or in the archive's own folder inside it."""
    stems = [stem for part in _STEMS[name] for stem in part]
    places = (folder, folder / _PYTHON_FOLDERS[name])
    return any(all((place / stem).is_file() for stem in stems) for place in places)


def read_cifar(files: CifarFiles, facts: Published) -> Dataset:
    """Read the files found by `find_cifar`.

    Raises:
        DatasetError: The files do not match `facts`.
    """
    training = [
        _read(path, facts, facts.training_file_images // len(files.training)) for path in files.training
    ]
    test = [_read(path, facts, facts.test_images) for path in files.test]
    return facts.dataset(_joined(training), _joined(test))


def _joined(subsets: Sequence[Subset]) -> Subset:
    return Subset(
        np.concatenate([subset.images for subset in subsets]),
        np.concatenate([subset.labels for subset in subsets]),
    )


def _read(path: Path, facts: Published, count: int) -> Subset:
    before = _LABEL_BYTES[facts.name]
    record = before + int(np.prod(facts.shape))
    content = _bytes(path, count * record)
    if len(content) != count * record:
        raise DatasetError(f"{path}: has {len(content)} bytes, expected {count} records of {record}")
    records = np.frombuffer(content, np.uint8).reshape(count, record)
    return Subset(records[:, before:].reshape(count, *facts.shape), records[:, before - 1])


def _bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    if len(content) > limit:
        raise DatasetError(f"{path}: is larger than the expected {limit} bytes")
    return content
