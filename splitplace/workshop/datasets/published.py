"""The published data sets by name, and the files that each is read from."""

from collections.abc import Mapping
from pathlib import Path

from splitplace.workshop.datasets.cifar import find_cifar, has_python_version, read_cifar
from splitplace.workshop.datasets.dataset import Dataset, DatasetError, Published, Subset
from splitplace.workshop.datasets.idx import has_idx, read_idx
from splitplace.workshop.datasets.npz import read_arrays, read_held_out_pictures, read_pictures

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

_CIFAR100_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""

CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
    "mnist": tuple("0123456789"),
    "fashionmnist": (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": tuple(_CIFAR100_NAMES.split()),
}
"""Names of the classes, in the order of their labels."""

_IDX_FILES = "train-images-idx3-ubyte(.gz), train-labels-idx1-ubyte(.gz), and the same with t10k"
_EXPECTED: Mapping[str, str] = {
    "mnist": f"mnist.npz (arrays xtr, ytr, xte, yte), or {_IDX_FILES}",
    "fashionmnist": _IDX_FILES,
    "cifar10": "data_batch_1.bin to data_batch_5.bin and test_batch.bin (the binary version), "
    "or the folder cifar-10-batches-bin with them",
    "cifar100": "cifar100.npz (lossless pictures), or train.bin and test.bin (the binary version), "
    "or the folder cifar-100-binary with them",
}


def load_published(name: str, folder: Path) -> Dataset:
    """Read one of `PUBLISHED` from a folder, in whichever of its formats is there.

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
    if facts.shape[0] != 1 and has_python_version(folder, name):
        raise DatasetError(
            f"{folder} holds the Python version of {name}, which is a pickle and is not read. "
            f"Download the binary version: {_EXPECTED[name]}"
        )
    raise DatasetError(
        f"{folder} does not hold {name}. Expected there: {_EXPECTED[name]}. Nothing is downloaded."
    )


def load_held_out(name: str, folder: Path, count: int) -> Subset:
    """Read at most `count` images of the validation part, which may be shown without touching the test part.

    Raises:
        DatasetError: As for `load_published`.
    """
    facts = PUBLISHED[name]
    archive = folder / f"{name}.npz"
    if name == "cifar100" and archive.exists():  # avoid decoding thousands of pictures for a few
        return read_held_out_pictures(archive, facts, count)
    return load_published(name, folder).validation.first(count)
