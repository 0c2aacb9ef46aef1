"""Pictures in folders: which class, which size, which part."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitplace.workshop.datasets import DatasetError
from splitplace.workshop.datasets.image_folder import read_image_folder, split

LABELS = ("cat", "dog", "fish")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten red cats and twenty blue dogs, of several kinds of files; no fish."""
    for label, colour, count in (("cat", (200, 0, 0), 10), ("dog", (0, 0, 200), 20)):
        (tmp_path / label).mkdir()
        for number in range(count):
            suffix = ("png", "jpg", "webp", "JPEG")[number % 4]
            Image.new("RGB", (20 + number, 30), colour).save(tmp_path / label / f"{number}.{suffix}")
        (tmp_path / label / "notes.txt").write_text("no picture")
    return tmp_path


def test_pictures_are_scaled_and_labelled_by_their_folder(folder: Path) -> None:
    found = read_image_folder(folder, LABELS, (3, 16, 12))
    assert found.images.shape == (30, 3, 16, 12)
    assert np.bincount(found.labels).tolist() == [10, 20]
    reddest = found.images.mean(axis=(2, 3)).argmax(axis=1)
    np.testing.assert_array_equal(reddest, np.where(found.labels == 0, 0, 2))
    assert read_image_folder(folder, LABELS, (1, 16, 12)).images.shape == (30, 1, 16, 12)


def test_the_split_depends_on_the_seed_alone_and_gives_each_class_its_share(folder: Path) -> None:
    subset = read_image_folder(folder, LABELS, (3, 4, 4))
    subset.images[:, 0, 0, 0] = np.arange(30)
    one, again, other = (split(subset, seed) for seed in (0, 0, 1))
    parts = (one.training, one.validation, one.test)
    assert [np.bincount(part.labels).tolist() for part in parts] == [[8, 16], [1, 2], [1, 2]]
    numbers = [part.images[:, 0, 0, 0].tolist() for part in parts]
    assert sorted(sum(numbers, [])) == list(range(30))  # noqa: RUF017 - three short lists
    np.testing.assert_array_equal(one.training.images, again.training.images)
    assert one.training.images[:, 0, 0, 0].tolist() != other.training.images[:, 0, 0, 0].tolist()


def test_what_is_no_folder_of_pictures_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        read_image_folder(tmp_path / "missing", LABELS, (3, 8, 8))
    with pytest.raises(DatasetError, match="not named like a class: dog"):
        read_image_folder(folder, ("cat",), (3, 8, 8))
    with pytest.raises(DatasetError, match="no pictures"):
        read_image_folder(folder / "cat", LABELS, (3, 8, 8))
    (folder / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="is not a readable picture"):
        read_image_folder(folder, LABELS, (3, 8, 8))


def test_a_picture_that_unpacks_to_too_much_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitplace.services.gateway.pictures.MAX_IMAGE_PIXELS", 700)
    with pytest.raises(DatasetError, match="720 pixels; at most 700"):
        read_image_folder(folder, LABELS, (3, 8, 8))
