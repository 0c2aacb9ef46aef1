"""Picture files for tests."""

import io

from PIL import Image

MARK = (255, 0, 0)


def marked(width: int, height: int, box: tuple[int, int, int, int], kind: str = "PNG") -> bytes:
    """Return a grey picture with a red box."""
    picture = Image.new("RGB", (width, height), (90, 90, 90))
    picture.paste(MARK, box)
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def squares(width: int, height: int, *corners: tuple[int, int], side: int) -> bytes:
    """Return a dark picture with bright squares."""
    picture = Image.new("RGB", (width, height), (20, 20, 20))
    for left, top in corners:
        picture.paste((250, 250, 250), (left, top, left + side, top + side))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
