"""Fit an upright picture into the input of a network: stretch, crop or pad it. Pure."""

from collections.abc import Mapping
from typing import Final

from PIL import Image

from splitplace.messages.pictures import Interpolation, PictureInput, View

STRETCH_NOTED = 1.05
"""Ratio of aspect ratios from which stretching is worth a warning."""

_FILTERS: Final[Mapping[Interpolation, Image.Resampling]] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_OPAQUE = 255


def framed(picture: Image.Image, view: View, size: tuple[int, int], how: PictureInput) -> Image.Image:
    """Return a picture as a network sees it.

    Args:
        picture: In `L`, `RGB` or `RGBA`; perhaps a smaller version of the original.
        view: Where the input lies on the original.
        size: Width and height of the input.
        how: Preprocessing.
    """
    resample = _FILTERS[how.interpolation]
    if how.fit != "pad":
        if how.fit == "stretch" and picture.size == size:
            return picture
        left, top, right, bottom = view.seen(size)
        across, down = picture.width / view.width, picture.height / view.height
        part = (
            max(0.0, left * across),
            max(0.0, top * down),
            min(picture.width, right * across),
            min(picture.height, bottom * down),
        )
        return picture.resize(size, resample, box=part)
    inner = round(view.width * view.scale_x), round(view.height * view.scale_y)
    if inner == size == picture.size:
        return picture
    ground = (*(how.padding,) * 3, _OPAQUE)[: len(picture.getbands())]
    canvas = Image.new(picture.mode, size, ground)
    canvas.paste(picture.resize(inner, resample), (round(view.left), round(view.top)))
    return canvas


def note_scaling(
    original: tuple[int, int], size: tuple[int, int], how: PictureInput, done: list[str]
) -> None:
    """Note scaling that changes what the network sees."""
    stretch = (original[0] / original[1]) / (size[0] / size[1])
    if how.fit == "stretch" and max(stretch, 1 / stretch) >= STRETCH_NOTED:
        done.append(f"stretched from {original[0]} x {original[1]} to {size[0]} x {size[1]}")
    elif original[0] * 2 <= size[0]:
        done.append(f"enlarged from {original[0]} x {original[1]} to {size[0]} x {size[1]}")
