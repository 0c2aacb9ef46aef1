"""Pictures are fitted as the application or the sensor says."""

import io

import numpy as np
import pytest
from PIL import Image

from splitplace.messages.pictures import FITS, Fit, PictureInput
from splitplace.messages.tensors import TensorSpec
from splitplace.services.gateway.pictures import decode
from tests.support.pictures import MARK, marked

SQUARE = TensorSpec(dtype="uint8", shape=(3, 100, 100))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("sides", [(400, 200), (200, 400), (1600, 1200), (50, 50), (100, 100)])
def test_what_the_network_sees_is_found_again_on_the_picture(
    kind: str, fit: Fit, sides: tuple[int, int]
) -> None:
    width, height = sides
    box = (2 * width // 5, 2 * height // 5, 3 * width // 5, 3 * height // 5)
    inputs, _, (view,) = decode((marked(*sides, box, kind),), SQUARE, PictureInput(fit=fit))
    red = (inputs[0, 0].astype(int) - inputs[0, 1]) > 100
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    found = view.on_picture((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    pixel = max(1 / view.scale_x, 1 / view.scale_y, 1)
    assert found == pytest.approx(box, abs=2 * pixel)


def test_padding_has_the_value_that_the_application_says() -> None:
    content = marked(200, 100, (0, 0, 200, 100))
    inputs, _, _ = decode((content,), SQUARE, PictureInput(fit="pad", padding=7))
    assert inputs[0, :, 0, 0].tolist() == [7, 7, 7]
    assert inputs[0, :, 50, 50].tolist() == list(MARK)
    inputs, _, _ = decode((content,), SQUARE, PictureInput(fit="pad", padding=7, padded_at="end"))
    assert inputs[0, :, 0, 0].tolist() == list(MARK)
    assert inputs[0, :, 99, 0].tolist() == [7, 7, 7]


def test_only_stretching_is_worth_a_warning() -> None:
    content = marked(200, 100, (0, 0, 9, 9))
    said = {fit: decode((content,), SQUARE, PictureInput(fit=fit)).warnings for fit in FITS}
    assert said == {
        "stretch": ("the picture was stretched from 200 x 100 to 100 x 100",),
        "crop": (),
        "pad": (),
    }


def test_interpolation_is_the_application_s() -> None:
    checked = np.indices((100, 100)).sum(axis=0) % 2 * 255
    file = io.BytesIO()
    Image.fromarray(checked.astype(np.uint8)).save(file, "PNG")
    small = TensorSpec(dtype="uint8", shape=(1, 50, 50))
    nearest, _, _ = decode((file.getvalue(),), small, PictureInput(interpolation="nearest"))
    smooth, _, _ = decode((file.getvalue(),), small, PictureInput(interpolation="bilinear"))
    assert set(np.unique(nearest)) <= {0, 255}
    assert abs(smooth.astype(int) - 128).max() < 5
