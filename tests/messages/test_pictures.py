"""How a network sees a picture, and where a place that it names lies on the picture."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.pictures import FITS, Fit, PictureInput, View

SIDES = st.integers(1, 5000)


def test_a_stretched_picture_is_seen_whole() -> None:
    view = View.of((640, 480), (320, 320), PictureInput(fit="stretch"))
    assert view.seen((320, 320)) == pytest.approx((0, 0, 640, 480))
    assert view.on_picture((0, 0, 160, 320)) == pytest.approx((0, 0, 320, 480))


def test_of_a_cropped_picture_the_centre_is_seen_in_its_proportions() -> None:
    view = View.of((640, 480), (240, 240), PictureInput(fit="crop"))
    assert view.seen((240, 240)) == pytest.approx((80, 0, 560, 480))
    assert view.on_picture((0, 0, 240, 240)) == pytest.approx((80, 0, 560, 480))
    share = View.of((640, 480), (240, 240), PictureInput(fit="crop", crop_share=0.5))
    assert share.seen((240, 240)) == pytest.approx((200, 120, 440, 360))


def test_a_padded_picture_is_seen_whole_in_its_proportions() -> None:
    view = View.of((640, 480), (320, 320), PictureInput(fit="pad"))
    assert (view.left, view.top) == (0, 40)
    assert view.on_picture((0, 40, 320, 280)) == pytest.approx((0, 0, 640, 480))
    assert view.on_picture((0, 0, 320, 320)) == pytest.approx(
        (0, 0, 640, 480)
    )  # what was filled up is no picture
    corner = View.of((640, 480), (320, 320), PictureInput(fit="pad", padded_at="end"))
    assert (corner.left, corner.top) == (0, 0)


@given(
    st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.sampled_from(FITS), st.floats(0, 1), st.floats(0, 1)
)
def test_what_is_mapped_to_the_input_and_back_is_where_it_was(
    picture: tuple[int, int], size: tuple[int, int], fit: Fit, across: float, down: float
) -> None:
    view = View.of(picture, size, PictureInput(fit=fit))
    x, y = across * picture[0], down * picture[1]
    on_input = x * view.scale_x + view.left, y * view.scale_y + view.top
    assert view.on_picture((*on_input, *on_input)) == pytest.approx((x, y, x, y), abs=1e-3, rel=1e-6)
