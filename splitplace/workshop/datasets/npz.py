"""Read data sets from one NumPy archive: `mnist.npz` (arrays) and `cifar100.npz` (lossless WebP pictures)."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitplace.workshop.datasets.dataset import Dataset, DatasetError, Images, Published, Subset

_HEADER_BYTES = 4096
"""Limit for the header of an array."""
_LABEL_BYTES = 8


def read_arrays(path: Path, facts: Published) -> Dataset:
    """Read an archive with the arrays `xtr ytr xte yte`: `uint8[N, H, W]` and `uint8[N]`.

    Raises:
        DatasetError: The archive does not match `facts`.
    """
    pixels = int(np.prod(facts.shape))
    training, test = facts.training_file_images, facts.test_images
    bounds = {"xtr": training * pixels, "ytr": training, "xte": test * pixels, "yte": test}
    arrays = _load(path, bounds)
    for key, array in arrays.items():
        if array.dtype != np.uint8:
            raise DatasetError(f"{path}: {key} is {array.dtype}, expected uint8")
    return facts.dataset(
        Subset(arrays["xtr"][:, np.newaxis], arrays["ytr"]),
        Subset(arrays["xte"][:, np.newaxis], arrays["yte"]),
    )


def read_pictures(path: Path, facts: Published) -> Dataset:
    """Read an archive with `{train,test}_{images_blob,offsets,labels}`.

    Image i is the encoded picture at `blob[offsets[i]:offsets[i + 1]]`.

    Raises:
        DatasetError: The archive does not match `facts`, or a picture cannot be decoded.
    """
    training, test = facts.training_file_images, facts.test_images
    return facts.dataset(
        _read_part(path, facts, "train", training, training), _read_part(path, facts, "test", test, test)
    )


def read_held_out_pictures(path: Path, facts: Published, count: int) -> Subset:
    """Read the first `count` images of the validation part; decode no other picture.

    Raises:
        DatasetError: As for `read_pictures`.
    """
    wanted = min(count, facts.held_out)
    return _read_part(path, facts, "train", facts.training_file_images, wanted)


def _read_part(path: Path, facts: Published, part: str, count: int, wanted: int) -> Subset:
    """Read the first `wanted` of the `count` pictures of a part."""
    small = _LABEL_BYTES * (count + 1)
    blob_bytes = 2 * count * int(np.prod(facts.shape))
    bounds = {f"{part}_images_blob": blob_bytes, f"{part}_offsets": small, f"{part}_labels": small}
    blob, offsets, labels = _load(path, bounds).values()
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DatasetError(
            f"{path}: {part}_labels is {labels.dtype}{list(labels.shape)}, expected {count} integers"
        )
    try:
        if offsets.shape != (count + 1,):
            raise ValueError(f"{offsets.shape} offsets for {count} pictures")  # noqa: TRY301 - reported like all other faults of pictures
        images = _decode(blob.tobytes(), offsets.tolist(), wanted, facts.shape)
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"{path}: pictures of part {part} cannot be decoded: {error}") from error
    return Subset(images, labels[:wanted])


def _decode(blob: bytes, offsets: list[int], count: int, shape: tuple[int, int, int]) -> Images:
    images = np.empty((count, *shape), np.uint8)
    size = (shape[2], shape[1])
    for index in range(count):
        with Image.open(
            io.BytesIO(blob[offsets[index] : offsets[index + 1]]), formats=("WEBP", "PNG")
        ) as picture:
            if picture.size != size:  # before its pixels are unpacked
                raise ValueError(f"picture {index} has {picture.size} pixels instead of {size}")
            images[index] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    return images


def _load(path: Path, bounds: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Load arrays of an archive, each within its limit in bytes, without unpickling anything."""
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key, most in bounds.items():
                stored_bytes = archive.zip.getinfo(f"{key}.npy").file_size
                if stored_bytes > most + _HEADER_BYTES:
                    raise DatasetError(
                        f"{path}: {key} has {stored_bytes} bytes, more than the {most} it may have"
                    )
                arrays[key] = archive[key]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    return arrays
