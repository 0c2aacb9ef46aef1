"""Decode the pictures of a task, after their headers have said what that costs. Pure.

Run it in a thread: a picture of 16 megapixels takes tens of milliseconds.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from splitplace.messages.application import TensorSpec
from splitplace.messages.limits import MAX_IMAGE_PIXELS, MAX_TASK_INPUT_BYTES, MAX_TASK_PIXELS
from splitplace.services.gateway.refusals import refuse

_MODES = {1: "L", 3: "RGB"}
_AXES = 3


def decode(files: tuple[bytes, ...], spec: TensorSpec) -> NDArray[Any]:
    """Decode PNG and JPEG files to inputs [len(files), *spec.shape].

    Raises:
        TaskRefusedError: unreadable, too many pixels, or not what the application takes.
    """
    if spec.dtype != "uint8" or len(spec.shape) != _AXES or spec.shape[0] not in _MODES:
        refuse(
            "bad-picture",
            f"this application takes {spec.dtype} {list(spec.shape)}, not pictures; send `inputs`",
        )
    if len(files) * spec.bytes_per_image > MAX_TASK_INPUT_BYTES:
        refuse("too-large", f"{len(files)} pictures exceed {MAX_TASK_INPUT_BYTES} bytes of inputs")
    _check_pixels(files)
    channels, height, width = spec.shape
    batch = np.empty((len(files), *spec.shape), dtype=np.uint8)
    for index, content in enumerate(files):
        batch[index] = _picture(content, _MODES[channels], width, height).reshape(-1, height, width)
    return batch


def _check_pixels(files: tuple[bytes, ...]) -> None:
    """Add up the pixels that the headers announce, before any is decoded."""
    total = 0
    for content in files:
        with _opened(content) as picture:
            pixels = picture.width * picture.height
            if pixels > MAX_IMAGE_PIXELS:
                refuse(
                    "bad-picture",
                    f"a picture of {picture.width} x {picture.height}; at most {MAX_IMAGE_PIXELS} pixels",
                )
        total += pixels
        if total > MAX_TASK_PIXELS:
            refuse(
                "bad-picture",
                f"the pictures have more than {MAX_TASK_PIXELS} pixels together; send several tasks",
            )


def _picture(content: bytes, mode: str, width: int, height: int) -> NDArray[np.uint8]:
    """Decode a picture, channels first, and scale it to the size of the application's input."""
    with _opened(content) as picture:
        converted = picture.convert(mode)
        if converted.size != (width, height):
            converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(converted, dtype=np.uint8)
    return pixels if mode == "L" else np.moveaxis(pixels, -1, 0)


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Open a picture; whatever makes it unreadable becomes a refusal."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about what is checked and refused here
            yield Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
    except UnidentifiedImageError:
        refuse("bad-picture", "an image is not a readable PNG or JPEG")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        refuse("bad-picture", f"an image is not a readable PNG or JPEG: {error}")
