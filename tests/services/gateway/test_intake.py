"""What sensors may send, and what each kind of bad input is told."""

import base64
import io
import json
import zlib
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from splitplace.bus.connection import RawReceived, RequestProperties
from splitplace.messages.limits import MAX_BATCH, MAX_TASK_BYTES
from splitplace.services.gateway.intake import (
    ANONYMOUS,
    TaskRefusedError,
    ValidTask,
    address_of_refusal,
    admit,
    identify,
)
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


def submit(message: RawReceived) -> ValidTask:
    return admit(message, identify(message), {"digits": APPLICATION})


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


def test_several_pictures_are_one_batch() -> None:
    files = tuple(base64.b64encode(picture()).decode() for _ in range(3))
    assert len(submit(raw(json.dumps({"images": files}).encode())).inputs) == 3


def test_a_bare_picture_takes_its_deadline_from_a_user_property() -> None:
    properties = RequestProperties(user={"deadline_ms": "250", "client": "door", "task": "7"})
    admission = submit(raw(picture(), properties=properties))
    assert (admission.deadline_ms, admission.identity.key) == (250.0, "door.7")


def test_names_come_from_topic_or_body_and_are_made_up_where_missing() -> None:
    assert submit(raw(as_json(), client="door", task="7")).identity.key == "door.7"
    assert submit(raw(as_json(client="door", task="8"))).identity.key == "door.8"
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
    "an unknown field": ("malformed", as_json(colour="red")),
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
    "a bad name": ("malformed", as_json(client="a/b")),
    "deep nesting": ("malformed", b"\x81\xa1a" + b"\x91" * 5000),
}


@pytest.mark.parametrize(("kind", "payload"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_with_its_kind(kind: str, payload: bytes) -> None:
    assert refusal(raw(payload)).kind == kind


def test_an_unknown_application_is_told_which_there_are() -> None:
    error = refusal(raw(as_json(), application_name="cats"))
    assert error.kind == "unknown-application"
    assert "digits" in error.reason


def test_a_wrong_shape_is_told_the_right_one() -> None:
    assert "[batch, 1, 28, 28]" in refusal(raw(as_json(shape=(1, 3, 28, 28)))).reason


def test_a_bad_deadline_property_is_refused() -> None:
    for value in ("soon", "nan", "inf", "-1", "1e99"):
        error = refusal(raw(picture(), properties=RequestProperties(user={"deadline_ms": value})))
        assert error.kind == "bad-deadline"


def test_names_that_contradict_each_other_are_refused() -> None:
    assert refusal(raw(as_json(client="window"), client="door")).kind == "bad-name"


def test_the_refusal_of_a_bad_body_goes_to_the_sender_the_body_names() -> None:
    message = raw(as_json(client="door", task="7", version=2))
    assert address_of_refusal(message, identify(message)).key == "door.7"


def test_names_in_the_topic_cannot_be_redirected_by_the_body() -> None:
    message = raw(as_json(client="window", task="8", version=2), client="door", task="7")
    assert address_of_refusal(message, identify(message)).key == "door.7"


@given(st.binary(max_size=300))
def test_no_bytes_whatever_do_anything_but_pass_or_be_refused(payload: bytes) -> None:
    message = raw(payload)
    try:
        submit(message)
    except TaskRefusedError:
        address_of_refusal(message, identify(message))


@given(
    st.integers(0, 400), st.binary(min_size=1, max_size=8), st.sampled_from(["json", "msgpack", "picture"])
)
def test_no_mutation_of_a_good_task_does_anything_but_pass_or_be_refused(
    position: int, noise: bytes, kind: str
) -> None:
    good = {"json": as_json(), "msgpack": as_msgpack(), "picture": picture()}[kind]
    broken = good[:position] + noise + good[position + len(noise) :]
    message = raw(broken)
    try:
        submit(message)
    except TaskRefusedError:
        address_of_refusal(message, identify(message))
