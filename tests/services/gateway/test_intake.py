"""What sensors may send, and what each kind of bad input is told."""

import base64
import contextlib
import io
import json
import tracemalloc
import zlib
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from splitplace.bus.connection import RawReceived, RequestProperties
from splitplace.messages.answer_kinds import Detection
from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_BATCH, MAX_TASK_BYTES
from splitplace.messages.pictures import PictureInput, View
from splitplace.services.gateway.intake import ANONYMOUS, ValidTask, decode, identify, read
from splitplace.services.gateway.refusals import TaskIdentity, TaskRefusedError
from tests.support.message_examples import application

APPLICATION = application()
SPEC = APPLICATION.input
ONE = (np.arange(SPEC.bytes_per_image) % 251).astype(np.uint8).reshape(1, *SPEC.shape)


def raw(
    payload: bytes, *, application_name: str = "digits", properties: Any = None, **parameters: str
) -> RawReceived:
    return RawReceived(
        {"application": application_name, **parameters}, payload, properties or RequestProperties()
    )


def submit(message: RawReceived, application: Application = APPLICATION) -> ValidTask:
    return decode(read(message, identify(message)), application)


def refusal(message: RawReceived) -> TaskRefusedError:
    with pytest.raises(TaskRefusedError) as caught:
        submit(message)
    assert caught.value.reason
    return caught.value


def as_json(**fields: Any) -> bytes:
    body = {"inputs": base64.b64encode(ONE.tobytes()).decode(), "shape": ONE.shape, **fields}
    return json.dumps({key: value for key, value in body.items() if value is not None}).encode()


def as_msgpack(**fields: Any) -> bytes:
    body = {"inputs": ONE.tobytes(), "shape": ONE.shape, **fields}
    return bytes(msgpack.packb({key: value for key, value in body.items() if value is not None}))


def picture(width: int = 4, height: int = 4, kind: str = "PNG", mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), 77 if mode == "L" else (77, 77, 77)).save(file, kind)
    return file.getvalue()


def huge_picture() -> bytes:
    """A tiny PNG file whose header claims 30,000 x 30,000 pixels."""
    header = (30_000).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    body = b"".join(
        len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def bomb() -> bytes:
    """A zstd frame of a few KB that claims to hold one input and expands to 100 MB."""
    return zstandard.ZstdCompressor(write_content_size=True).compress(bytes(100_000_000))


def nested_msgpack(outer: int, inner: int) -> bytes:
    """An array of short arrays."""
    return b"\xdc" + outer.to_bytes(2) + (b"\xdc" + inner.to_bytes(2) + b"\xc0" * inner) * outer


WIDE = picture(2048, 2048)
"""Four million pixels in a few KB."""


# --- good input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [as_json(), as_msgpack(), as_json(shape=None), as_msgpack(dtype="uint8")])
def test_json_and_msgpack_give_the_same_inputs(payload: bytes) -> None:
    admission = submit(raw(payload))
    assert np.array_equal(admission.inputs, ONE)
    assert admission.deadline_ms == APPLICATION.default_deadline_ms


def test_compressed_inputs_are_unpacked() -> None:
    packed = zstandard.compress(ONE.tobytes())
    assert np.array_equal(submit(raw(as_msgpack(inputs=packed, codec="zstd"))).inputs, ONE)


def test_a_shape_without_the_channel_of_one_is_understood() -> None:
    assert submit(raw(as_json(shape=(1, 28, 28)))).inputs.shape == (1, 1, 28, 28)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_bare_picture_of_any_size_and_colour_becomes_one_input(kind: str, mode: str) -> None:
    inputs = submit(raw(picture(28, 20, kind, mode))).inputs
    assert inputs.shape == (1, 1, 28, 28)
    assert abs(int(inputs[0, 0, 14, 14]) - 77) <= 2


def test_what_an_application_warns_of_stands_first_in_every_answer() -> None:
    careful = APPLICATION.model_copy(update={"caution": "the weights of this network are random"})
    assert submit(raw(as_json()), careful).warnings[0] == careful.caution
    assert careful.caution not in submit(raw(as_json())).warnings


def test_several_pictures_are_one_batch() -> None:
    files = tuple(base64.b64encode(picture()).decode() for _ in range(3))
    assert len(submit(raw(json.dumps({"images": files}).encode())).inputs) == 3


def test_a_bare_picture_takes_its_deadline_from_a_user_property() -> None:
    properties = RequestProperties(user={"deadline_ms": "250", "client": "door", "task": "7"})
    admission = submit(raw(picture(), properties=properties))
    assert (admission.deadline_ms, admission.identity) == (250.0, TaskIdentity("door", "7"))


def test_a_sensor_says_how_its_pictures_are_fitted() -> None:
    wide = picture(8, 4)
    detector = APPLICATION.model_copy(update={"answer": Detection()})
    packed = {"inputs": None, "shape": None, "images": [wide]}
    asked = raw(wide, properties=RequestProperties(user={"fit": "pad"}))
    for message, fit in (
        (raw(wide), "stretch"),
        (asked, "pad"),
        (raw(as_msgpack(**packed, fit="crop")), "crop"),
    ):
        (view,) = submit(message, detector).views
        assert view == View.of(
            (8, 4), (SPEC.shape[2], SPEC.shape[1]), PictureInput.model_validate({"fit": fit})
        )
    assert submit(asked).content != submit(raw(wide)).content  # another task, with another answer
    unknown = raw(wide, properties=RequestProperties(user={"fit": "squeeze"}))
    assert "one of stretch, crop, pad" in refusal(unknown).reason


def test_names_come_from_topic_or_body_and_are_made_up_where_missing() -> None:
    assert submit(raw(as_json(), client="door", task="7")).identity == TaskIdentity("door", "7")
    assert submit(raw(as_json(client="door", task="8"))).identity == TaskIdentity("door", "8")
    first, second = submit(raw(as_json())).identity, submit(raw(as_json())).identity
    assert first.client == ANONYMOUS
    assert first.task != second.task


# --- bad input -------------------------------------------------------------------------------------

BAD: dict[str, tuple[str, bytes]] = {
    "nothing": ("malformed", b""),
    "noise": ("malformed", bytes(range(200, 256))),
    "broken json": ("malformed", as_json()[:-5]),
    "broken base64": ("malformed", as_json(inputs="*" * 40)),
    "truncated base64": ("bad-shape", as_json(inputs=base64.b64encode(ONE.tobytes()[:-3]).decode())),
    "broken msgpack": ("malformed", as_msgpack()[:-5]),
    "a wrong version": ("malformed", as_json(version=2)),
    "inputs and images": ("malformed", as_msgpack(images=[picture()])),
    "neither inputs nor images": ("malformed", b"{}"),
    "a wrong shape": ("bad-shape", as_json(shape=(1, 1, 14, 56))),
    "a shape bigger than the data": ("bad-shape", as_json(shape=(2, 1, 28, 28))),
    "a shape of nothing": ("bad-shape", as_json(shape=())),
    "a wrong dtype": ("bad-dtype", as_json(dtype="float32")),
    "an unknown dtype": ("malformed", as_json(dtype="object")),
    "an empty batch": ("empty-batch", as_json(inputs="", shape=(0, 1, 28, 28))),
    "an empty batch without a shape": ("empty-batch", as_json(inputs="", shape=None)),
    "an oversized batch": ("oversized-batch", as_json(shape=(MAX_BATCH + 1, 1, 28, 28))),
    "a deadline of nothing": ("bad-deadline", as_json(deadline_ms=0)),
    "a negative deadline": ("bad-deadline", as_json(deadline_ms=-5)),
    "an endless deadline": ("bad-deadline", as_json(deadline_ms=1e300)),
    "a deadline that is no number": ("bad-deadline", as_json(deadline_ms="soon")),
    "too few labels": ("bad-labels", as_json(labels=[])),
    "a label that no class has": ("bad-labels", as_json(labels=[4])),
    "a decompression bomb": ("malformed", as_msgpack(inputs=bomb(), codec="zstd")),
    "broken compression": ("malformed", as_msgpack(inputs=b"not zstd at all", codec="zstd")),
    "a truncated picture": ("bad-picture", picture(40, 40)[:-30]),
    "a picture bomb": ("bad-picture", huge_picture()),
    "a picture that is only a beginning": ("bad-picture", b"\x89PNG\r\n\x1a\n" + bytes(20)),
    "too much": ("too-large", as_json() + b" " * MAX_TASK_BYTES),
    "a bad name": ("bad-name", as_json(client="a/b")),
    "deep nesting": ("malformed", b"\x81\xa1a" + b"\x91" * 5000),
    "many maps": ("malformed", b"\x81\xa6inputs" + b"\xdd" + (500_000).to_bytes(4) + b"\x80" * 500_000),
    "many arrays of arrays": ("malformed", b"\x81\xa6images" + nested_msgpack(1000, 1000)),
    "many keys": ("malformed", b"\xde\x00\x20" + b"".join(b"\xa1%c\xc0" % (97 + i) for i in range(32))),
    "many maps in json": ("malformed", b'{"images": [' + b"{}," * 500_000 + b"{}]}"),
    "many numbers in json": ("malformed", b'{"labels": [' + b"1," * 500_000 + b"1]}"),
    "many pictures of many pixels": ("bad-picture", as_msgpack(inputs=None, shape=None, images=[WIDE] * 5)),
}


@pytest.mark.parametrize(("kind", "payload"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_with_its_kind(kind: str, payload: bytes) -> None:
    assert refusal(raw(payload)).kind == kind


def test_a_wrong_shape_is_told_the_right_one() -> None:
    assert "[batch, 1, 28, 28]" in refusal(raw(as_json(shape=(1, 3, 28, 28)))).reason


def test_a_bad_deadline_property_is_refused() -> None:
    for value in ("soon", "nan", "inf", "-1", "1e99"):
        error = refusal(raw(picture(), properties=RequestProperties(user={"deadline_ms": value})))
        assert error.kind == "bad-deadline"


def test_names_that_contradict_each_other_are_refused() -> None:
    assert refusal(raw(as_json(client="window"), client="door")).kind == "bad-name"


def test_the_refusal_of_a_bad_body_goes_to_the_sender_the_body_names() -> None:
    for body in (as_json, as_msgpack):
        error = refusal(raw(body(client="door", task="7", version=2)))
        assert error.identity == TaskIdentity("door", "7")


def test_names_in_the_topic_cannot_be_redirected_by_the_body() -> None:
    message = raw(as_json(client="window", task="8", version=2), client="door", task="7")
    assert refusal(message).identity == TaskIdentity("door", "7")


@pytest.mark.parametrize("name", ["many maps", "many arrays of arrays", "many maps in json"])
def test_a_body_of_many_entries_is_refused_before_it_is_built(name: str) -> None:
    _, payload = BAD[name]
    tracemalloc.start()
    refusal(raw(payload))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(payload) + 1_000_000


def test_a_full_batch_of_pictures_passes_the_bounds_of_both_encodings() -> None:
    files = [picture()] * MAX_BATCH
    labels = [0] * MAX_BATCH
    assert (
        len(submit(raw(as_msgpack(inputs=None, shape=None, images=files, labels=labels))).inputs) == MAX_BATCH
    )
    encoded = [base64.b64encode(file).decode() for file in files]
    assert (
        len(submit(raw(as_json(inputs=None, shape=None, images=encoded, labels=labels))).inputs) == MAX_BATCH
    )


def is_costly(*files: bytes) -> bool:
    payload = as_msgpack(inputs=None, shape=None, images=list(files))
    return read(raw(payload), TaskIdentity("door", "7")).is_costly


def png(width: int, height: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_only_pngs_of_a_few_pixels_are_decoded_on_the_event_loop() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 100_000, zip=True)
    assert not is_costly(png(28, 28))
    assert is_costly(png(4096, 4096))  # 17 KB of zeros
    assert is_costly(*[png(128, 128)] * 5)
    assert is_costly(png(28, 28, pnginfo=text))
    assert is_costly(png(28, 28)[:20])
    buffer = io.BytesIO()
    Image.new("L", (28, 28)).save(buffer, "JPEG")
    assert is_costly(buffer.getvalue())


def test_the_content_of_a_task_is_its_application_and_inputs_and_not_how_they_are_sent() -> None:
    def content(payload: bytes, **names: str) -> str:
        return read(raw(payload, **names), TaskIdentity("door", "7")).content

    assert content(as_json()) == content(as_msgpack(deadline_ms=7.0, labels=[1]))
    assert content(as_json()) != content(as_json(), application_name="cats")
    changed = bytes(ONE.tobytes()[:-1] + b"\x01")
    assert content(as_msgpack()) != content(as_msgpack(inputs=changed))


@given(st.binary(max_size=300))
def test_no_bytes_whatever_do_anything_but_pass_or_be_refused(payload: bytes) -> None:
    message = raw(payload)
    with contextlib.suppress(TaskRefusedError):
        submit(message)


@given(
    st.integers(0, 400), st.binary(min_size=1, max_size=8), st.sampled_from(["json", "msgpack", "picture"])
)
def test_no_mutation_of_a_good_task_does_anything_but_pass_or_be_refused(
    position: int, noise: bytes, kind: str
) -> None:
    good = {"json": as_json(), "msgpack": as_msgpack(), "picture": picture()}[kind]
    broken = good[:position] + noise + good[position + len(noise) :]
    message = raw(broken)
    with contextlib.suppress(TaskRefusedError):
        submit(message)
