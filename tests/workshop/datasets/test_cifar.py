"""Reading CIFAR in its published versions, without running what a pickle asks for."""

import io
import pickle
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from splitplace.workshop.datasets import PUBLISHED, DatasetError, Published, Subset, load_published
from splitplace.workshop.datasets.plain_pickle import PlainPickleError, load_plain_pickle

Arrays = Mapping[str, NDArray[np.uint8]]
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


def _python2_pickle(subset: Subset, key: str) -> bytes:
    """As Python 2 wrote it: protocol 2, strings of bytes, an array by `numpy.core.multiarray`."""
    data = subset.images.reshape(len(subset), -1)

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R(K\x03" + short(b"|") + b"NNN"
    dtype += integer(-1) + integer(-1) + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R"
    array += b"(K\x01" + integer(data.shape[0]) + integer(data.shape[1]) + b"\x86" + dtype + b"\x89"
    array += b"T" + struct.pack("<i", data.nbytes) + data.tobytes() + b"tb"
    labels = b"](" + b"".join(integer(int(label)) for label in subset.labels) + b"e"
    return b"\x80\x02}(" + short(b"data") + array + short(key.encode()) + labels + b"u."


def _python3_pickle(subset: Subset, key: str) -> bytes:
    stored = {b"data": subset.images.reshape(len(subset), -1), key.encode(): subset.labels.tolist()}
    return pickle.dumps(stored, protocol=3)


@pytest.mark.parametrize("write", [_python2_pickle, _python3_pickle])
def test_the_pickled_versions_are_read(tmp_path: Path, write: object) -> None:
    assert callable(write)
    training, test = _subset(10, 10, 0), _subset(4, 10, 1)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(5):
        part = slice(2 * number, 2 * number + 2)
        content = write(Subset(training.images[part], training.labels[part]), "labels")
        (folder / f"data_batch_{number + 1}").write_bytes(content)
    (folder / "test_batch").write_bytes(write(test, "labels"))
    data = load_published("cifar10", tmp_path)
    np.testing.assert_array_equal(data.validation.images, training.images[:2])
    np.testing.assert_array_equal(data.training.images, training.images[2:])
    np.testing.assert_array_equal(data.training.labels, training.labels[2:])
    np.testing.assert_array_equal(data.test.images, test.images)

    (tmp_path / "train").write_bytes(write(_subset(10, 100, 2), "fine_labels"))
    (tmp_path / "test").write_bytes(write(_subset(4, 100, 3), "fine_labels"))
    hundred = load_published("cifar100", tmp_path)
    np.testing.assert_array_equal(hundred.test.labels, _subset(4, 100, 3).labels)


def test_the_binary_versions_are_read(tmp_path: Path) -> None:
    training, test = _subset(10, 100, 0), _subset(4, 100, 1)
    for subset, name in ((training, "train.bin"), (test, "test.bin")):
        coarse = np.full((len(subset), 1), 7, np.uint8)
        records = (coarse, subset.labels[:, None], subset.images.reshape(len(subset), -1))
        (tmp_path / name).write_bytes(np.concatenate(records, axis=1).astype(np.uint8).tobytes())
    data = load_published("cifar100", tmp_path)
    np.testing.assert_array_equal(data.training.images, training.images[2:])
    np.testing.assert_array_equal(data.test.labels, test.labels)
    (tmp_path / "test.bin").write_bytes(b"\0" * 4 * 3073)
    with pytest.raises(DatasetError, match="expected 4 records of 3074"):
        load_published("cifar100", tmp_path)
    (tmp_path / "test.bin").write_bytes(b"\0" * 5 * 3074)
    with pytest.raises(DatasetError, match="larger than the 12296 bytes"):
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


def test_a_pickle_that_runs_code_is_refused_and_does_not_run_it(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for protocol in (0, 1, 2, 3, 4, 5):
        content = pickle.dumps({b"data": _Payload(made), b"fine_labels": []}, protocol=protocol)
        for name in ("train", "test"):
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match=r"it names|the instruction"):
            load_published("cifar100", tmp_path)
    assert not made.exists()


def test_a_place_of_memory_far_away_takes_no_memory() -> None:
    assert load_plain_pickle(b"\x80\x02}r\xff\xff\xff\x7f.") == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no pickle of plain data"),
        (b"\x80\x02}", "no pickle of plain data"),
        (b"\x80\x02cos\nsystem\nU\x04trueq\x00\x85R.", "names os.system"),
        (b"\x80\x02cbuiltins\neval\nU\x011\x85R.", "names builtins.eval"),
        (b"cnumpy\ndtype.__init__\n.", r"names numpy\.dtype\.__init__"),
        (b"\x80\x02}h\x05.", "no pickle of plain data"),
        (b"\x80\x02}}.", "no pickle of plain data"),
        (b"\x80\x02K\x01a.", "no pickle of plain data"),
        (b"\x80\x02(K\x01\x85.", "no pickle of plain data"),
        (b"\x80\x02t.", "no pickle of plain data"),
        (b"\x80\x02}(K\x01u.", "no pickle of plain data"),
        (b"\x80\x02](K\x01K\x02u.", "no pickle of plain data"),
        (b"\x80\x02}}b.", "state of what is no array"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "calls what makes no array"),
        (b"\x80\x04\x95" + b"\xff" * 8 + b".", "the instruction"),
        (b"\x80\x02Q.", "the instruction BINPERSID"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x05\x85cnumpy\ndtype\nU\x02u1\x85RK\x00U\x01atb.",
            "not of bytes, or has not as many",
        ),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x01\x85cnumpy\ndtype\nU\x02O8\x85RK\x00U\x01atb.",
            "not of bytes",
        ),
    ],
)
def test_pickles_that_are_more_than_plain_data_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(PlainPickleError, match=reason):
        load_plain_pickle(content)
