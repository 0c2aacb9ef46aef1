"""Draw an answer onto its picture: a bar with words, boxes, or a map of classes."""

import colorsys
import io
from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont, ImageOps

from splitplace.commands.shared.wording import described
from splitplace.messages.findings import OUTSIDE, AnyPrediction, FoundObject, FoundObjects, FoundRegions

_LEAST_HEIGHT = 12
_SHARE_OF_HEIGHT = 16
_SMALL_SHARE = 32
_LONGEST_SIDE = 4096
_GROUND = (0, 0, 0, 160)
_MAP_OPACITY = 110
_GOLDEN = 0.618034
"""Share of the circle of colours between classes of neighbouring numbers: they look different."""

Colour = tuple[int, int, int]


class DrawingError(ValueError):
    """The picture cannot be read or drawn on."""


def drawn(content: bytes, prediction: AnyPrediction | None) -> Image.Image:
    """Return a picture in RGB with its answer: boxes, a map of classes, and words on a bar below.

    Args:
        content: The picture file.
        prediction: Its answer; None = there is none.

    Raises:
        DrawingError: It is no readable picture, or the answer's map is none.
    """
    picture = _upright(content)
    scale = min(1.0, _LONGEST_SIDE / max(picture.size))
    if scale < 1:
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    if isinstance(prediction, FoundRegions):
        picture = _with_map(picture, prediction)
    elif isinstance(prediction, FoundObjects):
        for found in reversed(prediction.objects):  # the surest on top
            _draw_box(picture, found, scale)
    _draw_words(picture, "no answer" if prediction is None else described(prediction))
    return picture


def colour_of(index: int) -> Colour:
    """Return the colour of a class."""
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _upright(content: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content)) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except Exception as error:  # broken files make Pillow raise errors of many kinds
        raise DrawingError(f"not a readable picture: {error}") from error


def _with_map(picture: Image.Image, regions: FoundRegions) -> Image.Image:
    """Return the picture under a veil in the colours of the classes."""
    try:
        with Image.open(io.BytesIO(regions.png), formats=("PNG",)) as opened:
            classes = opened.convert("L").resize(picture.size, Image.Resampling.NEAREST)
    except Exception as error:  # as above
        raise DrawingError(f"the answer's map of classes is not readable: {error}") from error
    background = regions.regions[0].index if len(regions.regions) > 1 else OUTSIDE
    colours = [colour_of(index) for index in range(256)]
    classes.putpalette([part for colour in colours for part in colour])
    bare = _opacities({OUTSIDE: 0, background: 0}, _MAP_OPACITY)
    veil = Image.frombytes("L", classes.size, classes.tobytes().translate(bare))
    return Image.composite(classes.convert("RGB"), picture, veil)


def _opacities(chosen: Mapping[int, int], others: int) -> bytes:
    return bytes(chosen.get(index, others) for index in range(256))


def _draw_box(picture: Image.Image, found: FoundObject, scale: float) -> None:
    pen = ImageDraw.Draw(picture, "RGBA")
    colour = colour_of(found.index)
    left, top, right, bottom = (side * scale for side in found.box)
    width = max(1, max(picture.size) // 320)
    pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)
    font = ImageFont.load_default(max(_LEAST_HEIGHT, picture.height // _SMALL_SHARE))
    text = f"{found.label} {found.confidence:.0%}"
    _, _, across, down = pen.textbbox((0, 0), text, font=font)
    at = left, top - down - 4 if top >= down + 4 else top
    pen.rectangle((*at, at[0] + across + 4, at[1] + down + 4), fill=(*colour, 220))
    pen.text((at[0] + 2, at[1] + 1), text, fill="black", font=font)


def _draw_words(picture: Image.Image, text: str) -> None:
    size = max(_LEAST_HEIGHT, picture.height // _SHARE_OF_HEIGHT)
    font = ImageFont.load_default(size)
    pen = ImageDraw.Draw(picture, "RGBA")
    margin = size // 3
    top = picture.height - size - 2 * margin
    pen.rectangle((0, top, picture.width, picture.height), fill=_GROUND)
    pen.text((margin, top + margin), text, fill="white", font=font)
