"""What a network finds lies where it is on the picture, however that was fitted."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from splitplace.messages.findings import (
    OUTSIDE,
    FoundObject,
    FoundObjects,
    FoundRegions,
    FoundVector,
)
from splitplace.messages.pictures import FITS, Fit, PictureInput, View
from splitplace.messages.tensors import TensorSpec
from splitplace.services.gateway.mapping import on_picture
from splitplace.services.gateway.pictures import decode

SIZE = (96, 64)
PICTURES = [(640, 480), (480, 640), (96, 64), (30, 20), (1000, 100)]


def of_class(classes: NDArray[np.uint8]) -> FoundRegions:
    file = io.BytesIO()
    Image.fromarray(classes).save(file, "PNG")
    return FoundRegions(png=file.getvalue(), regions=())


def pixels(finding: FoundRegions) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(finding.png)) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("picture", PICTURES)
def test_a_box_around_something_bright_lies_around_it_on_the_picture(
    fit: Fit, picture: tuple[int, int]
) -> None:
    width, height = picture
    bright = (0.45 * width, 0.45 * height, 0.55 * width, 0.55 * height)
    shown = Image.new("L", picture)
    shown.paste(255, (round(bright[0]), round(bright[1]), round(bright[2]), round(bright[3])))
    file = io.BytesIO()
    shown.save(file, "PNG")
    spec = TensorSpec(dtype="uint8", shape=(1, SIZE[1], SIZE[0]))
    (seen,), _, (view,) = decode((file.getvalue(),), spec, PictureInput(fit=fit))
    rows, columns = np.nonzero(seen[0] > 120)
    box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    found = FoundObjects(objects=(FoundObject(label="x", index=0, confidence=0.5, box=box),))
    mapped = on_picture(found, view, SIZE)
    assert isinstance(mapped, FoundObjects)
    assert mapped.objects[0].box == pytest.approx(
        bright, abs=1.5 * max(1 / view.scale_x, 1 / view.scale_y, 1)
    )


def test_an_object_on_the_padding_is_none() -> None:
    view = View.of((640, 100), SIZE, PictureInput(fit="pad"))
    found = FoundObject(label="x", index=0, confidence=0.5, box=(0.0, 0.0, 96.0, 9.0))
    assert on_picture(FoundObjects(objects=(found,)), view, SIZE) == FoundObjects(objects=())


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("picture", PICTURES)
def test_a_map_covers_the_whole_picture_and_says_where_nothing_was_seen(
    fit: Fit, picture: tuple[int, int]
) -> None:
    view = View.of(picture, SIZE, PictureInput(fit=fit))
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    on_x = (columns + 0.5 - view.left) / view.scale_x
    on_y = (rows + 0.5 - view.top) / view.scale_y
    classes = ((on_x > picture[0] / 2) + 2 * (on_y > picture[1] / 2)).astype(np.uint8)  # its four quarters
    mapped = on_picture(of_class(classes), view, SIZE)
    assert isinstance(mapped, FoundRegions)
    result = pixels(mapped)
    assert (
        result.shape[1] / result.shape[0] == pytest.approx(picture[0] / picture[1], rel=0.2)
        or fit == "stretch"
    )
    height, width = result.shape
    middle = result[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2]
    assert set(middle.ravel().tolist()) <= {0, 1, 2, 3}
    for number, part in enumerate(
        (
            result[: height // 2, : width // 2],
            result[: height // 2, width // 2 :],
            result[height // 2 :, : width // 2],
            result[height // 2 :, width // 2 :],
        )
    ):
        known = part[part != OUTSIDE]
        assert (known == number).mean() > 0.85
    assert ((result == OUTSIDE).any()) == (fit == "crop" and picture not in {(96, 64), (30, 20)})


def test_other_findings_stay_as_they_are() -> None:
    vector = FoundVector(values=(1.0,))
    assert on_picture(vector, View.of((9, 9), SIZE, PictureInput()), SIZE) is vector
