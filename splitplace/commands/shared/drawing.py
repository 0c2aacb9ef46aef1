"""Draw an answer onto its picture."""

import io

from PIL import Image, ImageDraw, ImageFont, ImageOps

from splitplace.messages.task import Prediction

_LEAST_HEIGHT = 12
_SHARE_OF_HEIGHT = 16
_LONGEST_SIDE = 4096
_GROUND = (0, 0, 0, 160)


class DrawingError(ValueError):
    """The picture cannot be read or drawn on."""


def drawn(content: bytes, prediction: Prediction | None) -> Image.Image:
    """Return a picture in RGB with label and confidence on a bar below.

    Args:
        content: The picture file.
        prediction: Its answer; None = there is none.

    Raises:
        DrawingError: It is no readable picture.
    """
    text = "no answer" if prediction is None else f"{prediction.label}  {prediction.confidence:.0%}"
    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except Exception as error:  # broken files make Pillow raise errors of many kinds
        raise DrawingError(f"not a readable picture: {error}") from error
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    size = max(_LEAST_HEIGHT, picture.height // _SHARE_OF_HEIGHT)
    font = ImageFont.load_default(size)
    pen = ImageDraw.Draw(picture, "RGBA")
    margin = size // 3
    top = picture.height - size - 2 * margin
    pen.rectangle((0, top, picture.width, picture.height), fill=_GROUND)
    pen.text((margin, top + margin), text, fill="white", font=font)
    return picture
