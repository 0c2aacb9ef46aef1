"""Reading CIFAR in its binary version and as pictures; pickles are never opened."""

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from splitplace.workshop.datasets import PUBLISHED, DatasetError, Published, Subset, load_published

SHAPE = (3, 32, 32)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten training images (two in each of five files) and four of test."""
    for name in ("cifar10", "cifar100"):
        small = replace(PUBLISHED[name], training_file_images=10, test_images=4, held_out=2)
        monkeypatch.setitem(cast("dict[str, Published]", PUBLISHED), name, small)


def _subset(count: int, classes: int, seed: int) -> Subset:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return Subset(images, random.integers(0, classes, count).astype(np.uint8))


def _write_records(path: Path, subset: Subset, *before: NDArray[np.uint8]) -> None:
    records = (*before, subset.labels[:, None], subset.images.reshape(len(subset), -1))
    path.write_bytes(np.concatenate(records, axis=1).astype(np.uint8).tobytes())


def test_cifar10_is_read_from_the_folder_of_its_archive(tmp_path: Path) -> None:
    training, test = _subset(10, 10, 0), _subset(4, 10, 1)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(5):
        part = slice(2 * number, 2 * number + 2)
        subset = Subset(training.images[part], training.labels[part])
        _write_records(folder / f"data_batch_{number + 1}.bin", subset)
    _write_records(folder / "test_batch.bin", test)
    data = load_published("cifar10", tmp_path)
    np.testing.assert_array_equal(data.validation.images, training.images[:2])
    np.testing.assert_array_equal(data.training.images, training.images[2:])
    np.testing.assert_array_equal(data.training.labels, training.labels[2:])
    np.testing.assert_array_equal(data.test.images, test.images)


def test_cifar100_is_read_and_files_of_another_size_are_refused(tmp_path: Path) -> None:
    training, test = _subset(10, 100, 0), _subset(4, 100, 1)
    for subset, name in ((training, "train.bin"), (test, "test.bin")):
        coarse = np.full((len(subset), 1), 7, np.uint8)
        _write_records(tmp_path / name, subset, coarse)
    data = load_published("cifar100", tmp_path)
    np.testing.assert_array_equal(data.training.images, training.images[2:])
    np.testing.assert_array_equal(data.test.labels, test.labels)
    (tmp_path / "test.bin").write_bytes(b"\0" * 4 * 3073)
    with pytest.raises(DatasetError, match="expected 4 records of 3074"):
        load_published("cifar100", tmp_path)
    (tmp_path / "test.bin").write_bytes(b"\0" * 5 * 3074)
    with pytest.raises(DatasetError, match="larger than the expected 12296 bytes"):
        load_published("cifar100", tmp_path)


def _write_pictures(path: Path, training: Subset, test: Subset) -> None:
    arrays: dict[str, NDArray[np.integer]] = {}
    for part, subset in (("train", training), ("test", test)):
        files = []
        for image in subset.images:
            with io.BytesIO() as file:
                Image.fromarray(image.transpose(1, 2, 0)).save(file, "WEBP", lossless=True)
                files.append(file.getvalue())
        arrays[f"{part}_images_blob"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{part}_labels"] = subset.labels
    np.savez(path, **arrays)  # type: ignore[arg-type]


def test_an_archive_of_lossless_pictures_is_read_bit_by_bit(tmp_path: Path) -> None:
    training, test = _subset(10, 100, 0), _subset(4, 100, 1)
    path = tmp_path / "cifar100.npz"
    _write_pictures(path, training, test)
    data = load_published("cifar100", tmp_path)
    np.testing.assert_array_equal(data.training.images, training.images[2:])
    np.testing.assert_array_equal(data.test.images, test.images)
    stored = dict(np.load(path))
    for damage in (
        {"test_offsets": stored["test_offsets"][:-1]},
        {"test_images_blob": stored["test_images_blob"][::-1]},
        {"test_labels": stored["test_labels"].astype(np.float32)},
        {"test_labels": stored["test_labels"] + np.uint8(100)},
        {"train_images_blob": np.zeros(100_000, np.uint8)},
    ):
        np.savez(path, **{**stored, **damage})
        with pytest.raises(DatasetError):
            load_published("cifar100", tmp_path)


def test_an_empty_folder_is_told_which_files_are_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"Expected there: cifar100\.npz .* train\.bin"):
        load_published("cifar100", tmp_path)
    with pytest.raises(DatasetError, match="data_batch_1"):
        load_published("cifar10", tmp_path)


class _Payload:
    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.made,))


@pytest.mark.parametrize(
    ("name", "folder", "files"),
    [
        ("cifar100", "", ("train", "test")),
        ("cifar100", "cifar-100-python", ("train", "test")),
        (
            "cifar10",
            "cifar-10-batches-py",
            (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"),
        ),
    ],
)
def test_the_python_version_is_refused_unread_and_the_binary_version_named(
    name: str, folder: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    (tmp_path / folder).mkdir(exist_ok=True)
    for file in files:
        (tmp_path / folder / file).write_bytes(pickle.dumps({b"data": _Payload(made)}))
    with pytest.raises(DatasetError, match=r"Download the binary version: .*\.bin"):
        load_published(name, tmp_path)
    assert not made.exists()
