"""The published data sets by name, and in which files each may lie."""

from collections.abc import Mapping
from pathlib import Path

from splitplace.workshop.datasets.cifar import find_cifar, read_cifar
from splitplace.workshop.datasets.idx import has_idx, read_idx
from splitplace.workshop.datasets.npz import read_arrays, read_held_out_pictures, read_pictures
from splitplace.workshop.datasets.parts import Dataset, DatasetError, Published, Subset

PUBLISHED: Mapping[str, Published] = {
    facts.name: facts
    for facts in (
        Published("mnist", (1, 28, 28), 10, 60_000, 10_000, held_out=10_000),
        Published("fashionmnist", (1, 28, 28), 10, 60_000, 10_000, held_out=5_000),
        Published("cifar10", (3, 32, 32), 10, 50_000, 10_000, held_out=5_000),
        Published("cifar100", (3, 32, 32), 100, 50_000, 10_000, held_out=5_000),
    )
}
"""MNIST's first 10,000 training images are held out because the shipped samples are taken from them."""

_IDX_FILES = "train-images-idx3-ubyte(.gz), train-labels-idx1-ubyte(.gz), and the same with t10k"
_EXPECTED: Mapping[str, str] = {
    "mnist": f"mnist.npz (arrays xtr, ytr, xte, yte), or {_IDX_FILES}",
    "fashionmnist": _IDX_FILES,
    "cifar10": "data_batch_1 to data_batch_5 and test_batch (python version; .bin: binary version), "
    "or the folder cifar-10-batches-py or cifar-10-batches-bin with them",
    "cifar100": "cifar100.npz (lossless pictures), or train and test (python version) or train.bin and "
    "test.bin (binary version), or the folder cifar-100-python or cifar-100-binary with them",
}


def load_published(name: str, folder: Path) -> Dataset:
    """Reads one of `PUBLISHED` from a folder, in whichever of its formats lies there.

    Raises:
        DatasetError: The folder holds none of the files, or they are not that data set.
    """
    facts = PUBLISHED[name]
    archive = folder / f"{name}.npz"
    if archive.exists():
        return read_pictures(archive, facts) if name == "cifar100" else read_arrays(archive, facts)
    for place in (folder, folder / name, folder / {"fashionmnist": "fashion-mnist"}.get(name, name)):
        if facts.shape[0] == 1 and has_idx(place):
            return read_idx(place, facts)
    if facts.shape[0] != 1 and (files := find_cifar(folder, name)):
        return read_cifar(files, facts)
    raise DatasetError(
        f"{folder} does not hold {name}. Expected there: {_EXPECTED[name]}. Nothing is downloaded."
    )


def load_held_out(name: str, folder: Path, count: int) -> Subset:
    """At most `count` images of the validation part: what may be shown without touching the test part.

    Raises:
        DatasetError: as `load_published`.
    """
    facts = PUBLISHED[name]
    archive = folder / f"{name}.npz"
    if name == "cifar100" and archive.exists():  # thousands of pictures to decode, of which few are wanted
        return read_held_out_pictures(archive, facts, count)
    held_out = load_published(name, folder).validation
    return Subset(held_out.images[:count], held_out.labels[:count])
