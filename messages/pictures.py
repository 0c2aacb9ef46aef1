"""How the pictures of sensors become the input of a network, and how places on it lead back to them. Pure."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from splitplace.messages.base import Part, Text

Fit = Literal["stretch", "crop", "pad"]
"""What is done with a picture of other proportions than the network's input: stretch it, cut off what is too
much on two sides, or fill up what is missing."""
FITS: tuple[Fit, ...] = get_args(Fit)

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)

Colours = Literal["rgb", "bgr", "grey"]
Layout = Literal["channels-first", "channels-last"]

Channel = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=1 << 20)]
Coordinate = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]


class PictureInput(Part):
    """Preprocessing of pictures. The gateway fits and resizes them; the first stage computes the rest."""

    fit: Fit = "stretch"
    crop_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the shorter side that `crop` keeps: .875 where networks of 224 see the centre of 256."""
    padding: Annotated[int, Field(ge=0, le=255)] = 114
    """Value of the bytes with which `pad` fills up."""
    padded_at: Literal["sides", "end"] = "sides"
    """Whether `pad` fills up on both sides alike, or only on the right and below."""
    interpolation: Interpolation = "bilinear"
    colours: Colours = "rgb"
    """The order of channels that the network takes."""
    layout: Layout = "channels-first"
    white: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """What a white pixel is before the mean is subtracted."""
    mean: Annotated[tuple[Channel, ...], Field(max_length=4)] = ()
    """Subtracted from each channel, in the network's order; empty = nothing."""
    deviation: Annotated[tuple[Channel, ...], Field(max_length=4)] = ()
    """What each channel is then divided by; empty = nothing."""
    invert: bool = False
    """Whether black and white are exchanged first."""
    rule: Text = ""
    """Who or what said so."""


class View(Part):
    """Where the input of a network lies on an upright picture.

    A point x, y of the picture is `x * scale_x + left`, `y * scale_y + top` on the input, in pixels from the
    upper left corner.
    """

    width: Side
    """Width of the picture."""
    height: Side
    scale_x: Annotated[float, Field(gt=0, le=1e9)]
    scale_y: Annotated[float, Field(gt=0, le=1e9)]
    left: Coordinate
    top: Coordinate

    @classmethod
    def of(cls, picture: tuple[int, int], size: tuple[int, int], how: PictureInput) -> "View":
        """Return how a picture is seen by a network.

        Args:
            picture: Its width and height.
            size: Width and height of the network's input.
            how: Preprocessing.
        """
        (width, height), (input_width, input_height) = picture, size
        ratios = input_width / width, input_height / height
        if how.fit == "stretch":
            scale_x, scale_y, left, top = *ratios, 0.0, 0.0
        elif how.fit == "crop":
            scale_x = scale_y = max(ratios) / how.crop_share
            left, top = (input_width - width * scale_x) / 2, (input_height - height * scale_y) / 2
        else:  # whole pixels, so that the picture ends where it seems to
            inner_width = max(1, round(width * min(ratios)))
            inner_height = max(1, round(height * min(ratios)))
            scale_x, scale_y = inner_width / width, inner_height / height
            at_sides = how.padded_at == "sides"
            left = float((input_width - inner_width) // 2) if at_sides else 0.0
            top = float((input_height - inner_height) // 2) if at_sides else 0.0
        return cls(width=width, height=height, scale_x=scale_x, scale_y=scale_y, left=left, top=top)

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the part of the picture (left, top, right, bottom) that an input of this size shows.

        It reaches beyond the picture where that was filled up.
        """
        return (
            -self.left / self.scale_x,
            -self.top / self.scale_y,
            (size[0] - self.left) / self.scale_x,
            (size[1] - self.top) / self.scale_y,
        )

    def on_picture(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Return a box on the input (left, top, right, bottom) in pixels of the picture, within it."""
        left, top, right, bottom = box
        return (
            min(max((left - self.left) / self.scale_x, 0.0), float(self.width)),
            min(max((top - self.top) / self.scale_y, 0.0), float(self.height)),
            min(max((right - self.left) / self.scale_x, 0.0), float(self.width)),
            min(max((bottom - self.top) / self.scale_y, 0.0), float(self.height)),
        )
