"""The common form of a data set: images and labels in three parts that never mix."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.errors import SplitPlaceError

Images = NDArray[np.uint8]
Labels = NDArray[np.integer[Any]]


class DatasetError(SplitPlaceError):
    """A data set is missing or does not have the expected content."""


@dataclass(frozen=True)
class Subset:
    """Images `uint8[N, C, H, W]` and their labels, integers `[N]` starting at 0."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "Subset":
        """Return at most `count` images from the beginning."""
        return Subset(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Dataset:
    """The three parts: train on the first, choose by the second, report on the third.

    The test part is used once, at the end of a build.
    """

    training: Subset
    validation: Subset
    test: Subset


@dataclass(frozen=True)
class Published:
    """Known properties of a published data set. Files that differ are refused."""

    name: str
    shape: tuple[int, int, int]
    """Channels, height and width of every image."""
    classes: int
    training_file_images: int
    test_images: int
    held_out: int
    """Number of images at the start of the training file that form the validation part."""

    def dataset(self, training: Subset, test: Subset) -> Dataset:
        """Check everything and hold out the validation part.

        Raises:
            DatasetError: A part has an unexpected size, shape or type, or a label beyond the last class.
        """
        for part, subset, count in (
            ("training", training, self.training_file_images),
            ("test", test, self.test_images),
        ):
            images, labels = subset.images, subset.labels
            if images.shape != (count, *self.shape) or images.dtype != np.uint8 or labels.shape != (count,):
                raise DatasetError(
                    f"{self.name}: the {part} part is {images.dtype}{list(images.shape)} with "
                    f"{list(labels.shape)} labels, expected uint8{[count, *self.shape]}"
                )
            if labels.max() >= self.classes or labels.min() < 0:
                raise DatasetError(
                    f"{self.name}: labels of the {part} part go up to {labels.max()}, "
                    f"expected 0 to {self.classes - 1}"
                )
        held_out, rest = slice(0, self.held_out), slice(self.held_out, None)
        return Dataset(
            training=Subset(training.images[rest], training.labels[rest]),
            validation=Subset(training.images[held_out], training.labels[held_out]),
            test=test,
        )
