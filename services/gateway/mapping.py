"""Bring what was found on the input of a network back onto the picture that a sensor has sent. Pure."""

import io

from PIL import Image

from splitplace.messages.findings import OUTSIDE, Finding, FoundObjects, FoundRegions
from splitplace.messages.limits import MAX_FINDING_BYTES
from splitplace.messages.pictures import View

MOST_PIXELS = 4 << 20
"""Largest map that is decoded."""


def on_picture(finding: Finding, view: View, size: tuple[int, int]) -> Finding:
    """Return a finding whose places are those of the picture; others stay as they are.

    Objects that lie wholly on what was filled up are left out.

    Args:
        finding: Of an input of a network.
        view: How the network sees the picture.
        size: Width and height of the input.
    """
    if isinstance(finding, FoundObjects):
        boxes = [view.on_picture(found.box) for found in finding.objects]
        return FoundObjects(
            objects=tuple(
                found.model_copy(update={"box": tuple(round(side, 2) for side in box)})
                for found, box in zip(finding.objects, boxes, strict=True)
                if box[0] < box[2] and box[1] < box[3]
            )
        )
    return _map_on_picture(finding, view, size) if isinstance(finding, FoundRegions) else finding


def _map_on_picture(finding: FoundRegions, view: View, size: tuple[int, int]) -> FoundRegions:
    """Return a map that covers the whole picture and nothing else, in the pixels that it has."""
    left, top, right, bottom = view.seen(size)
    if max(abs(left), abs(top), abs(right - view.width), abs(bottom - view.height)) < 1 / max(size):
        return finding
    with Image.open(io.BytesIO(finding.png), formats=("PNG",)) as opened:
        if opened.width * opened.height > MOST_PIXELS:
            return finding
        classes = opened.convert("L")
    across, down = classes.width / size[0], classes.height / size[1]
    corners = (
        round(view.left * across),
        round(view.top * down),
        round((view.left + view.width * view.scale_x) * across),
        round((view.top + view.height * view.scale_y) * down),
    )
    place = (corners[0], corners[1], max(corners[2], corners[0] + 1), max(corners[3], corners[1] + 1))
    if (place[2] - place[0]) * (place[3] - place[1]) > MOST_PIXELS:
        return finding
    whole = Image.new("L", (place[2] - place[0], place[3] - place[1]), OUTSIDE)
    whole.paste(classes, (-place[0], -place[1]))
    file = io.BytesIO()
    whole.save(file, "PNG")
    packed = file.getvalue()
    return finding.model_copy(update={"png": packed}) if len(packed) <= MAX_FINDING_BYTES else finding
