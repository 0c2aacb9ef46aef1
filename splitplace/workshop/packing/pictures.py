"""Find the labelled pictures that an application's accuracy is measured on."""

from contextlib import suppress
from pathlib import Path

from splitplace.messages.application import Application
from splitplace.workshop.datasets import CLASS_NAMES, PUBLISHED, DatasetError, Subset, load_published
from splitplace.workshop.datasets.image_folder import read_image_folder

_AXES = 3


def labelled_pictures(application: Application, folder: Path, dataset: str = "") -> Subset:
    """Return the test images of a published data set, or the pictures of a folder for each class.

    Args:
        application: Its name or its classes tell the published set, if none is named: `resnet50` was trained
            on FashionMNIST.
        folder: The set's files, or a folder of pictures for each class.
        dataset: The published set that the folder holds; empty = as the application tells.

    Raises:
        DatasetError: There is no such set, the folder holds none, or the application takes no pictures, or
            answers with something else than classes.
    """
    if application.outputs:
        raise DatasetError(
            f"{application.name} answers with {application.answers.kind}: no class is right or wrong"
        )
    spec = application.input
    if application.inputs or spec.dtype != "uint8" or len(spec.shape) != _AXES:
        taken = [tensor.spec for tensor in application.inputs] or [spec]
        shown = ", ".join(f"{each.dtype} {list(each.shape)}" for each in taken)
        raise DatasetError(f"{application.name} takes {shown}, so labelled pictures cannot measure it")
    if dataset and dataset not in PUBLISHED:
        raise DatasetError(f"--dataset is one of {', '.join(PUBLISHED)}")
    name = dataset or (application.name if application.name in PUBLISHED else "")
    if name:
        return load_published(name, folder).test
    for known, facts in PUBLISHED.items():
        if CLASS_NAMES[known] == application.labels and facts.shape == spec.shape:
            with suppress(DatasetError):
                return load_published(known, folder).test
    channels, height, width = spec.shape
    return read_image_folder(folder, application.labels, (channels, height, width), application.pictures)
