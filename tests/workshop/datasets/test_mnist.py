"""Reading MNIST in its two forms, and refusing what is not MNIST."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from splitplace.workshop.datasets import DatasetError, load_published
from tests.support.small_networks import write_small_mnist

STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def _write_idx(folder: Path, arrays: dict[str, np.ndarray], *, compress: bool) -> None:
    for stem, array in zip(STEMS, arrays.values(), strict=True):
        content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        name = f"{stem}-ubyte"
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def test_the_first_training_images_are_held_out_and_no_part_overlaps(small_mnist: Path) -> None:
    arrays = np.load(small_mnist / "mnist.npz")
    data = load_published("mnist", small_mnist)
    np.testing.assert_array_equal(data.validation.images[:, 0], arrays["xtr"][:50])
    np.testing.assert_array_equal(data.training.images[:, 0], arrays["xtr"][50:])
    np.testing.assert_array_equal(data.training.labels, arrays["ytr"][50:])
    np.testing.assert_array_equal(data.test.images[:, 0], arrays["xte"])
    assert data.training.images.shape == (200, 1, 28, 28)


@pytest.mark.parametrize("compress", [True, False])
def test_idx_files_give_the_same_as_the_archive(small_mnist: Path, tmp_path: Path, *, compress: bool) -> None:
    _write_idx(tmp_path, dict(np.load(small_mnist / "mnist.npz")), compress=compress)
    archive, files = load_published("mnist", small_mnist), load_published("mnist", tmp_path)
    for one, other in ((archive.training, files.training), (archive.test, files.test)):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"mnist\.npz.*or train-images-idx3"):
        load_published("mnist", tmp_path)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    objects = np.array([{"code": "would run"}] * 3, dtype=object)
    np.savez(tmp_path / "mnist.npz", xtr=objects, ytr=objects, xte=objects, yte=objects, allow_pickle=True)
    with pytest.raises(DatasetError, match="allow_pickle=False"):
        load_published("mnist", tmp_path)


def test_an_archive_that_unpacks_to_more_than_mnist_is_refused_before_it_is_unpacked(
    small_mnist: Path,
) -> None:
    write_small_mnist(small_mnist, training=5000)
    with pytest.raises(DatasetError, match="more than the"):
        load_published("mnist", small_mnist)


def test_a_shortened_archive_a_wrong_type_and_a_wrong_label_are_refused(small_mnist: Path) -> None:
    path = small_mnist / "mnist.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "xte": arrays["xte"][:-1]})
    with pytest.raises(DatasetError, match=r"test part is uint8\[99, 1, 28, 28\]"):
        load_published("mnist", small_mnist)
    np.savez(path, **{**arrays, "yte": arrays["yte"].astype(np.int16)})
    with pytest.raises(DatasetError, match="yte is int16"):
        load_published("mnist", small_mnist)
    np.savez(path, **{**arrays, "yte": arrays["yte"] + np.uint8(1)})
    with pytest.raises(DatasetError, match="go up to 10, expected 0 to 9"):
        load_published("mnist", small_mnist)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08\x03", b"\0" * 1000, gzip.compress(b"\0" * 10_000_000), gzip.compress(b"\0" * 100)[:-8]],
    ids=["empty", "only a type", "no header", "bomb", "torn"],
)
def test_what_is_no_idx_file_is_refused(small_mnist: Path, tmp_path: Path, content: bytes) -> None:
    _write_idx(tmp_path, dict(np.load(small_mnist / "mnist.npz")), compress=True)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DatasetError, match=r"not an IDX file|cannot be read"):
        load_published("mnist", tmp_path)
