"""Pictures as people have them."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from splitplace.messages.limits import MAX_JPEG_PIXELS
from splitplace.messages.tensors import TensorSpec
from splitplace.services.gateway import containers
from splitplace.services.gateway.pictures import decode
from splitplace.services.gateway.refusals import TaskRefusedError

GREY = TensorSpec(dtype="uint8", shape=(1, 28, 28))
COLOUR = TensorSpec(dtype="uint8", shape=(3, 32, 32))
ORIENTATION = 0x0112


def corner(width: int = 56, height: int = 56) -> Image.Image:
    """Return a black picture whose upper left quarter is white."""
    picture = Image.new("L", (width, height))
    picture.paste(255, (0, 0, width // 2, height // 2))
    return picture


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def seen(content: bytes, spec: TensorSpec = GREY) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    inputs, warnings, _ = decode((content,), spec)
    return inputs[0], warnings


def refusal(*files: bytes, spec: TensorSpec = GREY) -> str:
    with pytest.raises(TaskRefusedError) as caught:
        decode(files, spec)
    assert caught.value.kind == "bad-picture"
    return caught.value.reason


def test_of_several_pictures_the_refused_one_is_named() -> None:
    assert refusal(saved(corner()), b"text").startswith(
        "picture 1 (counted from 0): an image is not a readable"
    )
    assert refusal(b"text").startswith("an image is not a readable")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_every_format_is_taken_without_a_word(kind: str, mode: str) -> None:
    if kind == "JPEG" and mode == "P":
        mode = "CMYK"
    if kind == "WEBP" and mode in {"1", "P"}:
        mode = "RGB"
    pixels, warnings = seen(saved(corner().convert(mode), kind))
    assert abs(int(pixels[0, 4, 4]) - 255) < 4
    assert int(pixels[0, 24, 24]) < 4
    assert warnings == ()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "row", "column"),
    [(1, 0, 0), (2, 0, 1), (3, 1, 1), (4, 1, 0), (5, 0, 0), (6, 0, 1), (7, 1, 1), (8, 1, 0)],
)
def test_pictures_are_turned_upright(kind: str, orientation: int, row: int, column: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pixels, warnings = seen(saved(corner(), kind, exif=exif))
    quarters = pixels[0].reshape(2, 14, 2, 14).mean(axis=(1, 3))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == (row, column)
    expected = () if orientation == 1 else ("the picture was turned upright, as its EXIF orientation says",)
    assert warnings == expected


def test_a_turned_picture_is_stretched_by_its_upright_sides() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for kind in ("JPEG", "TIFF"):
        _, warnings = seen(saved(corner(320, 180), kind, exif=exif))
        assert warnings[1] == "the picture was stretched from 180 x 320 to 28 x 28"


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_makes_no_sense_means_upright(value: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    assert seen(saved(corner(), "JPEG", exif=exif))[1] == ()


def test_transparent_pictures_are_laid_on_what_shows_them() -> None:
    for ink, ground in ((0, 255), (255, 0)):
        picture = Image.new("RGBA", (28, 28), (128, 128, 128, 0))
        picture.paste((ink, ink, ink, 255), (0, 0, 14, 14))
        for kind in ("PNG", "WEBP", "TIFF"):
            pixels, warnings = seen(saved(picture, kind, **({"lossless": True} if kind == "WEBP" else {})))
            assert (pixels[0, 4, 4], pixels[0, 20, 20]) == (ink, ground)
            name = "white" if ground else "black"
            assert warnings == (f"the picture was laid on {name}, because it is transparent",)


def test_a_transparent_colour_of_a_palette_counts_and_an_opaque_alpha_channel_does_not() -> None:
    assert "white" in seen(saved(Image.new("P", (28, 28)), transparency=0))[1][0]
    assert seen(saved(corner().convert("RGBA")))[1] == ()
    assert "white" in seen(saved(Image.new("RGBA", (28, 28), (9, 9, 9, 0))))[1][0]


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [corner(), Image.new("L", (56, 56), 80)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        pixels, warnings = seen(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert pixels[0, 4, 4] > 240
        assert warnings == ("the picture was reduced to its first frame",)


def test_sixteen_bits_become_eight() -> None:
    values = np.full((28, 28), 0x4000, dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels, warnings = seen(saved(Image.fromarray(values), kind))
        assert set(pixels.ravel().tolist()) == {0x40}
        assert warnings == ()


def test_floating_point_pictures_are_refused() -> None:
    assert "32 bits" in refusal(saved(Image.fromarray(np.ones((28, 28), np.float32)), "TIFF"))


def test_stretching_and_enlarging_are_said() -> None:
    assert seen(saved(corner(320, 180)))[1] == ("the picture was stretched from 320 x 180 to 28 x 28",)
    assert seen(saved(corner(4, 4)))[1] == ("the picture was enlarged from 4 x 4 to 28 x 28",)
    assert seen(saved(corner(640, 640)))[1] == ()


def test_warnings_name_the_pictures_of_a_batch() -> None:
    plain, wide = saved(corner()), saved(corner(112, 28))

    def said(*files: bytes) -> tuple[str, ...]:
        return decode(files, GREY).warnings

    assert said(wide, wide) == ("all pictures were stretched from 112 x 28 to 28 x 28",)
    assert said(plain, wide) == ("picture 1 (counted from 0) was stretched from 112 x 28 to 28 x 28",)
    (many,) = said(plain, *[wide] * 8)
    assert many.startswith("pictures 1, 2, 3, 4, 5 and 3 more (counted from 0) were stretched")


def test_a_picture_of_a_phone_is_decoded_at_a_fraction_of_its_size() -> None:
    large = saved(Image.new("RGB", (8000, 6000), (200, 30, 30)), "JPEG")
    pixels, warnings = seen(large, COLOUR)
    assert abs(int(pixels[0, 9, 9]) - 200) < 4
    assert warnings == ("the picture was stretched from 8000 x 6000 to 32 x 32",)


def test_drafts_look_like_whole_pictures() -> None:
    random = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(random).resize((1200, 1200), Image.Resampling.BICUBIC)
    draft, _ = seen(saved(picture, "JPEG", quality=95), COLOUR)
    whole, _ = seen(saved(picture, "PNG"), COLOUR)
    assert np.abs(draft.astype(int) - whole.astype(int)).mean() < 3


def test_pictures_that_cost_too_much_are_refused_by_their_headers() -> None:
    too_large = saved(Image.new("L", (8200, 8200)), "JPEG")
    assert str(MAX_JPEG_PIXELS) in refusal(too_large)
    for kind, options in (("PNG", {}), ("WEBP", {}), ("JPEG", {"progressive": True})):
        assert "baseline JPEG" in refusal(saved(Image.new("L", (5000, 4000)), kind, **options))
    assert "several tasks" in refusal(*[saved(Image.new("L", (8000, 6000)), "JPEG")] * 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_torn_pictures_are_refused(kind: str) -> None:
    whole = saved(Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)), kind)
    for length in (len(whole) // 2, 30):
        refusal(whole[:length])


def test_other_formats_are_never_opened() -> None:
    for kind in ("PPM", "ICO", "TGA", "JPEG2000"):
        assert "WebP" in refusal(saved(corner(), kind))


@pytest.mark.parametrize(
    "block", [b"!\xfe\x00", b"!\xfe\xff" + bytes([7]) * 255 + b"\0", b"!\xfe" + b"\x01a" * 10**6 + b"\0"]
)
def test_a_gif_of_nothing_but_comments_is_not_opened(block: bytes) -> None:
    head = b"GIF89a" + struct.pack("<HHBBB", 28, 28, 0, 0, 0)
    assert containers.trouble(head + block * (8_000_000 // len(block)))


def _chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _in_two(content: bytes, at: int, between: bytes) -> bytes:
    return content[:at] + between + content[at:]


def _tiff(strips: int, fields: int) -> bytes:
    """Return the head of a TIFF."""
    about = [(273, 4, strips, 200), *((tag, 3, 1, 1) for tag in range(300, 299 + fields))]
    head = b"II*\0" + struct.pack("<IH", 8, len(about))
    return head + b"".join(struct.pack("<HHII", *field) for field in about) + bytes(4 * strips)


PNG, JPEG, GIF = (saved(corner(), kind) for kind in ("PNG", "JPEG", "GIF"))
MANY = 100_000


@pytest.mark.parametrize(
    "content",
    [
        _in_two(PNG, 33, _chunk(b"teST") * MANY),
        _in_two(PNG, len(PNG) - 12, _chunk(b"teST") * MANY),
        _in_two(PNG, 33, _chunk(b"IDAT") * MANY),
        _in_two(JPEG, 2, b"\xff" * MANY),
        _in_two(JPEG, 2, b"\xff\x00" * MANY),
        _in_two(JPEG, 2, b"\xff\xe2\x00\x02" * MANY),
        _in_two(JPEG, 2, b"\xff\xfe\x00\x01" * MANY),
        _in_two(JPEG, 4, b"\x00" * MANY),
        _in_two(GIF, len(GIF) - 1, b"!\xfe\x00" * MANY),
        _in_two(GIF, len(GIF) - 1, b"!\xfe" + b"\x01a" * MANY + b"\x00"),
        _tiff(MANY, 8),
        _tiff(1, 5000),
    ],
    ids=range(12),
)
def test_a_picture_of_endless_parts_is_not_opened(content: bytes) -> None:
    assert containers.trouble(content)
    assert refusal(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF"])
def test_a_picture_as_large_as_a_task_is_opened(kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    assert containers.trouble(saved(Image.fromarray(noise), kind)) is None


@pytest.mark.parametrize("quality", [1, 100])
def test_a_webp_is_judged_before_its_canvas_is_allocated(quality: int) -> None:
    for save_all in (False, True):
        file = io.BytesIO()
        picture = Image.new("RGB", (4200, 4200))
        more = [Image.new("RGB", (4200, 4200), "red")] if save_all else []
        picture.save(
            file, "WEBP", lossless=quality == 100, method=0, quality=1, save_all=save_all, append_images=more
        )
        assert "17640000 pixels" in (containers.trouble(file.getvalue()) or "")


def test_thin_white_lines_on_nothing_are_laid_on_black() -> None:
    drawing = Image.new("RGBA", (560, 560), (0, 0, 0, 0))
    drawing.paste((255, 255, 255, 255), (0, 270, 560, 275))
    inputs, warnings = seen(saved(drawing))
    assert "laid on black" in warnings[0]
    assert inputs.max() > 30
