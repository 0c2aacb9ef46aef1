"""Read data sets from local folders. Nothing is downloaded, nothing is unpickled."""

from splitplace.workshop.datasets.dataset import Dataset, DatasetError, Images, Labels, Published, Subset
from splitplace.workshop.datasets.published import CLASS_NAMES, PUBLISHED, load_held_out, load_published

__all__ = [
    "CLASS_NAMES",
    "PUBLISHED",
    "Dataset",
    "DatasetError",
    "Images",
    "Labels",
    "Published",
    "Subset",
    "load_held_out",
    "load_published",
]
