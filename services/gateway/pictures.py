"""Decode the pictures of a task, after their headers have said what that costs. Pure.

People's pictures lie on their side, are transparent, or have several frames. What is done to a picture before
the network sees it is listed in the warnings of the answer.

Run it in a thread: a picture of 16 megapixels takes tens of milliseconds.
"""

import io
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, ImageStat, UnidentifiedImageError

from splitplace.messages.limits import (
    MAX_IMAGE_PIXELS,
    MAX_JPEG_PIXELS,
    MAX_TASK_INPUT_BYTES,
    MAX_TASK_PIXELS,
)
from splitplace.messages.pictures import PictureInput, View
from splitplace.messages.tensors import TensorSpec
from splitplace.services.gateway import containers
from splitplace.services.gateway.framing import framed, note_scaling
from splitplace.services.gateway.picture_files import FORMAT_NAMES, FORMATS
from splitplace.services.gateway.refusals import TaskRefusedError, refuse

SKIPPED_SHARE = 1 / 16
"""Cost of a JPEG pixel that draft decoding skips, in decoded pixels (measured: 8 ns against 90 ns)."""
DRAFT_FACTOR = 2
"""A JPEG is decoded at no less than so many times the size that the network takes."""
LIGHT = 224
"""Mean grey value from which what is visible of a transparent picture counts as light."""
MAX_NAMED = 5
"""Pictures that a warning names."""

PLAIN = PictureInput()
"""How pictures are fitted where an application says nothing."""

_MODES = {1: "L", 3: "RGB"}
_AXES = 3
_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
    struct.error,
)
"""What Pillow's readers raise on broken files."""


class Pictures(NamedTuple):
    """Decoded pictures."""

    inputs: NDArray[np.uint8]
    """Shape [pictures, channels, height, width]."""
    warnings: tuple[str, ...]
    """What was done to them."""
    views: tuple[View, ...]
    """Where the input lies on each upright picture."""


def decode(files: tuple[bytes, ...], spec: TensorSpec, how: PictureInput = PLAIN) -> Pictures:
    """Decode picture files to inputs [len(files), *spec.shape].

    Args:
        files: Contents of the files.
        spec: What the application takes.
        how: How pictures are fitted into it.

    Raises:
        TaskRefusedError: unreadable, too many pixels, or not what the application takes.
    """
    _check_bounds({"": files}, {"": spec})
    return _decoded(files, spec, how)


def decode_named(
    files: Mapping[str, tuple[bytes, ...]], specs: Mapping[str, TensorSpec], how: PictureInput = PLAIN
) -> dict[str, Pictures]:
    """Decode the pictures of several inputs. All of them together are bounded as those of one.

    Args:
        files: Contents of the files, by input.
        specs: What the application takes, by input.
        how: How pictures are fitted into it.

    Raises:
        TaskRefusedError: as `decode`.
    """
    _check_bounds(files, specs)
    found = {name: _decoded(contents, specs[name], how) for name, contents in files.items()}
    if len(files) > 1:
        found = {
            name: each._replace(warnings=tuple(f"{name}: {note}" for note in each.warnings))
            for name, each in found.items()
        }
    return found


def _check_bounds(files: Mapping[str, tuple[bytes, ...]], specs: Mapping[str, TensorSpec]) -> None:
    """Refuse what is no picture for its input, or costs too much, before anything is decoded."""
    size = count = 0
    for name, contents in files.items():
        spec = specs[name]
        if spec.dtype != "uint8" or len(spec.shape) != _AXES or spec.shape[0] not in _MODES:
            taker = f"the input {name!r}" if len(specs) > 1 else "this application"
            otherwise = "an array" if len(specs) > 1 else "`inputs`"
            taken = f"{spec.dtype} {list(spec.shape)}"
            refuse("bad-picture", f"{taker} takes {taken}, not pictures; send {otherwise}")
        count += len(contents)
        size += len(contents) * spec.bytes_per_image
    if size > MAX_TASK_INPUT_BYTES:
        refuse("too-large", f"{count} pictures exceed {MAX_TASK_INPUT_BYTES} bytes of inputs")
    cost = 0.0
    for name, contents in files.items():
        channels, height, width = specs[name].shape
        cost = _pixels_to_decode(contents, _MODES[channels], (width, height), cost)


def _decoded(files: tuple[bytes, ...], spec: TensorSpec, how: PictureInput) -> Pictures:
    """Decode pictures whose bounds were checked."""
    channels, height, width = spec.shape
    mode, size = _MODES[channels], (width, height)
    batch = np.empty((len(files), *spec.shape), dtype=np.uint8)
    notes: dict[str, list[int]] = {}
    views = []
    for index, content in enumerate(files):
        done: list[str] = []
        with _telling_which(index, len(files)):
            pixels, view = _pixels(content, mode, size, how, done)
        batch[index] = pixels.reshape(-1, height, width)
        views.append(view)
        for note in done:
            notes.setdefault(note, []).append(index)
    return Pictures(batch, tuple(_warnings(notes, len(files))), tuple(views))


def _warnings(notes: dict[str, list[int]], count: int) -> Iterator[str]:
    for note, pictures in notes.items():
        if count == 1:
            yield f"the picture was {note}"
        elif len(pictures) == count:
            yield f"all pictures were {note}"
        else:
            yield f"{_named(pictures)} (counted from 0) {'was' if len(pictures) == 1 else 'were'} {note}"


def _named(pictures: list[int]) -> str:
    more = len(pictures) - MAX_NAMED
    named = ", ".join(map(str, pictures[:MAX_NAMED])) + (f" and {more} more" if more > 0 else "")
    return f"picture{'s' if len(pictures) > 1 else ''} {named}"


@contextmanager
def _telling_which(index: int, count: int) -> Iterator[None]:
    """Let a refusal tell which of several pictures it is about."""
    try:
        yield
    except TaskRefusedError as error:
        if count == 1:
            raise
        refuse(error.kind, f"{_named([index])} (counted from 0): {error}")


def _pixels_to_decode(files: Sequence[bytes], mode: str, size: tuple[int, int], total: float) -> float:
    """Add to a total what decoding will cost, by the headers alone. Refuse what is too much."""
    for index, content in enumerate(files):
        with _telling_which(index, len(files)), _opened(content) as picture:
            pixels = picture.width * picture.height
            cost = float(pixels)
            limit = MAX_IMAGE_PIXELS
            if _has_draft(picture):
                limit = MAX_JPEG_PIXELS
                picture.draft(mode, _draft_size(size))
                cost = picture.width * picture.height + SKIPPED_SHARE * pixels
            if pixels > limit:
                kind = "" if limit == MAX_JPEG_PIXELS else " (more only as a baseline JPEG)"
                refuse("bad-picture", f"a picture of {pixels} pixels; at most {limit}{kind}")
        total += cost
        if total > MAX_TASK_PIXELS:
            refuse(
                "bad-picture",
                f"the pictures have more than {MAX_TASK_PIXELS} pixels to decode; send several tasks",
            )
    return total


def _has_draft(picture: Image.Image) -> bool:
    """Whether a smaller version can be decoded for less. A progressive JPEG is held whole in memory."""
    return picture.format in {"JPEG", "MPO"} and not picture.info.get("progressive")


def _draft_size(size: tuple[int, int]) -> tuple[int, int]:
    side = DRAFT_FACTOR * max(size)  # the picture may lie on its side
    return side, side


def _pixels(
    content: bytes, mode: str, size: tuple[int, int], how: PictureInput, done: list[str]
) -> tuple[NDArray[np.uint8], View]:
    """Decode a picture, channels first, at the size of the application's input.

    Args:
        content: its file.
        mode: Pillow's name of the colours to convert to.
        size: width and height to scale to.
        how: how it is fitted into them.
        done: gets what was done to it.
    """
    with _opened(content) as picture:
        if getattr(picture, "is_animated", False):
            done.append("reduced to its first frame")
        original = picture.size
        if _has_draft(picture):
            picture.draft(mode, _draft_size(size))
        orientation = _orientation(picture)
        picture.load()
        upright = ImageOps.exif_transpose(picture) if _orientation(picture) != 1 else picture
        if orientation != 1:
            done.append("turned upright, as its EXIF orientation says")
            if (original[0] > original[1]) != (upright.width > upright.height):
                original = original[1], original[0]
        plain = _eight_bits(upright)
        coloured = plain.convert("RGBA" if plain.has_transparency_data else mode)
        view = View.of(original, size, how)
        if coloured.size != size:
            note_scaling(original, size, how, done)
        scaled = framed(coloured, view, size, how)
        converted = _without_transparency(scaled, done).convert(
            mode
        )  # last: layers of the full size cost much
    pixels = np.asarray(converted, dtype=np.uint8)
    return (pixels if mode == "L" else np.moveaxis(pixels, -1, 0)), view


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where it is missing or makes no sense."""
    with suppress(*_ERRORS):
        found = picture.getexif().get(ExifTags.Base.Orientation, 1)
        if found in range(1, 9):
            return int(found)
    return 1


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scale 16 bits a channel to eight; `convert` would cut them off."""
    if picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.uint16)
        return Image.fromarray((values >> 8).astype(np.uint8))
    if picture.mode in {"I", "F"}:
        refuse("bad-picture", "a picture has 32 bits a pixel, whose range is not known; send eight or 16")
    return picture


def _without_transparency(picture: Image.Image, done: list[str]) -> Image.Image:
    """Lay a transparent picture on white, or on black if what is visible of it is light."""
    if not picture.has_transparency_data:
        return picture
    layers = picture.convert("RGBA")
    alpha = layers.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return layers
    visible = ImageStat.Stat(layers.convert("L"), mask=alpha.point([0] * 16 + [255] * 240))
    is_light = visible.count[0] > 0 and visible.mean[0] >= LIGHT
    ground = Image.new("RGBA", layers.size, "black" if is_light else "white")
    done.append(f"laid on {'black' if is_light else 'white'}, because it is transparent")
    return Image.alpha_composite(ground, layers)


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Open a picture; whatever makes it unreadable becomes a refusal."""
    if problem := containers.trouble(content):
        refuse("bad-picture", problem)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about what is checked and refused here
            yield Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        refuse("bad-picture", f"an image is not a readable {FORMAT_NAMES}")
    except (*_ERRORS, Image.DecompressionBombError) as error:
        refuse("bad-picture", f"an image is not a readable {FORMAT_NAMES}: {error}")
