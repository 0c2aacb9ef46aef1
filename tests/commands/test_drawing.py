"""Answers of every kind are drawn onto their pictures, and told in words."""

import io

import numpy as np
import pytest
from PIL import Image

from splitplace.commands.shared.drawing import DrawingError, colour_of, drawn
from splitplace.commands.shared.wording import described
from splitplace.messages.findings import (
    OUTSIDE,
    AnyPrediction,
    FoundObject,
    FoundObjects,
    FoundRegions,
    Region,
)
from tests.support.pictures import marked
from tests.support.predictions import FOUND

GREY = (90, 90, 90)


def test_a_box_is_drawn_where_the_object_is_and_nowhere_else() -> None:
    box = (100.0, 60.0, 200.0, 160.0)
    found = FoundObject(label="cat", index=3, confidence=0.9, box=box)
    picture = drawn(marked(400, 300, (0, 0, 0, 0)), FoundObjects(objects=(found,)))
    for place in ((100, 110), (199, 110), (150, 159)):
        assert picture.getpixel(place) == colour_of(3)
    for place in ((50, 110), (150, 110), (250, 110), (150, 200)):
        assert picture.getpixel(place) == GREY


def test_a_large_picture_is_drawn_smaller_and_its_boxes_with_it() -> None:
    found = FoundObject(label="x", index=0, confidence=0.9, box=(4096.0, 1000.0, 6000.0, 2000.0))
    picture = drawn(marked(8192, 2048, (0, 0, 0, 0), "JPEG"), FoundObjects(objects=(found,)))
    assert picture.size == (4096, 1024)
    assert np.allclose(picture.getpixel((2050, 750)) or (), colour_of(0), atol=3)


def test_a_map_is_laid_over_the_picture_in_the_colours_of_its_classes() -> None:
    classes = np.zeros((4, 8), np.uint8)
    classes[:, 4:6], classes[:, 6:] = 1, OUTSIDE
    file = io.BytesIO()
    Image.fromarray(classes).save(file, "PNG")
    regions = (Region(label="sky", index=0, share=0.5), Region(label="tree", index=1, share=0.25))
    picture = drawn(marked(80, 80, (0, 0, 0, 0)), FoundRegions(png=file.getvalue(), regions=regions))
    assert (
        picture.getpixel((10, 10)) == picture.getpixel((75, 10)) == GREY
    )  # the largest class, and what was not seen
    tree = picture.getpixel((50, 10))
    assert isinstance(tree, tuple)
    assert np.dot(np.subtract(tree, GREY), np.subtract(colour_of(1), GREY)) > 0
    with pytest.raises(DrawingError, match="map of classes"):
        drawn(marked(8, 8, (0, 0, 0, 0)), FoundRegions(png=b"no PNG", regions=()))


@pytest.mark.parametrize("found", FOUND, ids=lambda found: str(found.kind))
def test_every_kind_of_answer_has_words(found: AnyPrediction) -> None:
    words = described(found)
    assert words
    assert "\n" not in words
    if found.kind != "segmentation":  # whose example is no picture
        assert drawn(marked(60, 40, (0, 0, 0, 0)), found).size == (60, 40)


def test_objects_are_counted_in_words() -> None:
    cat, dog = (
        FoundObject(label=label, index=0, confidence=0.5, box=(0.0, 0.0, 1.0, 1.0))
        for label in ("cat", "dog")
    )
    assert described(FoundObjects(objects=(cat, dog, cat))) == "2 x cat, dog"
    assert described(FoundObjects(objects=())) == "nothing found"
