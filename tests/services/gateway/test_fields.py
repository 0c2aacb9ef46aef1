"""Tasks as makers of sensors write them."""

import base64
import json
from typing import Any

import msgpack
import numpy as np
import pytest

from splitplace.bus.incoming import RawReceived, RequestProperties
from splitplace.messages.task import TaskRequest
from splitplace.services.gateway.body import Body, parse
from splitplace.services.gateway.picture_files import bare_file, from_base64, is_file
from splitplace.services.gateway.refusals import TaskRefusedError

PNG = b"\x89PNG\r\n\x1a\n\xfb\xff\xbf rest"
TEXT = base64.b64encode(PNG).decode()


def parsed(payload: bytes | dict[str, Any], content_type: str | None = None) -> Body:
    encoded = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return parse(
        RawReceived({"application": "digits"}, encoded, RequestProperties(content_type=content_type))
    )


def request(**fields: Any) -> TaskRequest:
    return parsed(fields).request


def reason(payload: bytes | dict[str, Any]) -> str:
    with pytest.raises(TaskRefusedError) as caught:
        parsed(payload)
    return caught.value.reason


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("="),
        f"{TEXT[:10]}\r\n{TEXT[10:]}\n",
        TEXT.replace("+", "-").replace("/", "_"),
        f"data:image/png;base64,{TEXT}",
        f"data:image/png;charset=x;BASE64,\n{TEXT}",
        f" {TEXT} ",
    ],
)
def test_binary_data_is_taken_in_every_form_of_base64(text: str) -> None:
    assert request(images=[text]).images == (PNG,)
    assert request(inputs=text).inputs == PNG
    assert parsed(msgpack.packb({"images": [text]})).request.images == (PNG,)


@pytest.mark.parametrize("text", ["A", "é", "%%%%", "AA*A", "data:image/png,abc", "data:;base64", "A=A="])
def test_broken_base64_is_refused_by_the_name_of_its_field(text: str) -> None:
    assert "images: " in reason({"images": [text]})
    assert "inputs: " in reason({"inputs": text})


def test_a_single_picture_needs_no_list_and_no_plural() -> None:
    assert request(image=TEXT).images == (PNG,)
    assert request(images=TEXT).images == (PNG,)
    assert parsed(msgpack.packb({"image": PNG})).request.images == (PNG,)
    assert "image: " in reason({"image": TEXT, "images": [TEXT]})


def test_numbers_may_be_text_and_whole_numbers_may_have_a_point() -> None:
    found = request(inputs=TEXT, deadline_ms="500", shape=["2", 1.0, 28], labels=["3", 4.0], task=17)
    assert (found.deadline_ms, found.shape, found.labels, found.task) == (500.0, (2, 1, 28), (3, 4), "17")
    assert request(inputs=TEXT, label=3).labels == (3,)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("deadline_ms", "soon"),
        ("deadline_ms", "nan"),
        ("deadline_ms", True),
        ("deadline_ms", {}),
        ("shape", [1.5]),
        ("shape", "x"),
        ("labels", ["a"]),
        ("labels", [1e400]),
        ("images", 7),
        ("images", [7]),
        ("inputs", [1, 2]),
        ("task", 1e400),
        ("client", []),
    ],
)
def test_what_has_no_meaning_is_refused_by_its_name(field: str, value: Any) -> None:
    assert f"{field}" in reason({"inputs": TEXT} | {field: value})


def test_unknown_fields_are_ignored_and_named() -> None:
    body = parsed({"inputs": TEXT, "battery": 3.3, "timestamp": {"a": [1]}})
    assert body.warnings == ("fields that are not known were ignored: battery, timestamp",)
    many = {f"f{index}": index for index in range(9)}
    assert parsed({"inputs": TEXT, **many}).warnings[0].endswith("f0, f1, f2, f3, f4 and 4 more")
    (warning,) = parsed({"inputs": TEXT, "\x1b[2J": 1, "x" * 200: 2}).warnings
    assert warning.isprintable()
    assert len(warning) < 150


def test_null_is_like_a_field_that_is_missing() -> None:
    assert request(inputs=TEXT, images=None, deadline_ms=None, labels=None).inputs == PNG


def test_raw_line_breaks_inside_a_text_are_skipped_as_the_shell_makes_them() -> None:
    broken = TEXT[:10] + "\r\n" + TEXT[10:]
    assert parsed(f'{{\n"inputs":\t"{broken}",\n"deadline_ms": 5\n}}'.encode()).request.inputs == PNG


def test_a_byte_order_mark_is_skipped() -> None:
    assert parsed(b"\xef\xbb\xbf" + json.dumps({"inputs": TEXT}).encode()).request.inputs == PNG


@pytest.mark.parametrize("content_type", [None, "image/png", "text/plain", "application/octet-stream"])
def test_a_picture_alone_may_be_base64_or_a_data_url(content_type: str | None) -> None:
    for payload in (PNG, TEXT.encode(), f"data:image/png;base64,{TEXT}\n".encode()):
        assert parsed(payload, content_type).request.images == (PNG,)


@pytest.mark.parametrize(
    "begin", [b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x00\x00\x00\x00WEBP", b"BM", b"II*\0", b"MM\0*"]
)
def test_pictures_are_known_by_their_first_bytes(begin: bytes) -> None:
    assert is_file(begin + bytes(20))
    assert bare_file(begin) == begin


def test_large_data_is_decoded_in_time_that_grows_with_its_size_alone() -> None:
    data = np.random.default_rng(0).bytes(4_000_000)
    assert from_base64(base64.encodebytes(data)) == data


def test_fields_of_null_are_not_given() -> None:
    assert request(inputs=TEXT, codec=None, version=None, labels=None, images=None).codec == "raw"


def test_msgpack_may_hold_times_and_maps_in_fields_that_nobody_knows() -> None:
    body = {"inputs": PNG, "at": msgpack.Timestamp(1_700_000_000), "place": {"room": 1}}
    assert parsed(msgpack.packb(body)).request.inputs == PNG


@pytest.mark.parametrize("content_type", ["application/json", "application/msgpack", "text/plain"])
def test_a_picture_is_one_by_its_content_whatever_its_sender_calls_it(content_type: str) -> None:
    assert parsed(PNG, content_type).request.images == (PNG,)


@pytest.mark.parametrize("rest", [b"\0", bytes(200), b"\0\xde\xadleft {[,,", b"\r\n\0\0"])
def test_what_follows_the_end_of_a_text_in_c_is_ignored(rest: bytes) -> None:
    assert parsed(json.dumps({"inputs": TEXT}).encode() + rest).request.inputs == PNG
    assert parsed(json.dumps({"inputs": TEXT}).encode() + rest, "application/json").request.inputs == PNG


def test_the_rest_of_a_buffer_is_ignored_after_msgpack_and_base64() -> None:
    assert parsed(msgpack.packb({"inputs": PNG}) + bytes(50)).request.inputs == PNG
    assert parsed(TEXT.encode() + bytes(50)).request.images == (PNG,)
    assert "extra data" in reason(msgpack.packb({"inputs": PNG}) + b"\0rest")


@pytest.mark.parametrize(("value", "name"), [(3.5, "3.5"), (True, "true"), (False, "false"), (7, "7")])
def test_names_may_be_any_plain_value(value: object, name: str) -> None:
    found = request(inputs=TEXT, task=value, client=value)
    assert (found.task, found.client) == (name, name)


def test_names_and_texts_of_old_msgpack_packers_may_be_bytes() -> None:
    body = {b"inputs": PNG, b"task": b"a1", b"codec": b"raw", b"deadline_ms": b"500", b"battery": 1}
    found = parsed(msgpack.packb(body))
    assert found.request.inputs == PNG
    assert (found.request.task, found.request.codec, found.request.deadline_ms) == ("a1", "raw", 500.0)
    assert found.warnings == ("fields that are not known were ignored: battery",)
    assert "twice" in reason(msgpack.packb({b"inputs": PNG, "inputs": PNG}))
    assert "task" in reason(msgpack.packb({"inputs": PNG, "task": b"\xff/"}))


@pytest.mark.parametrize("size", [5, 5000, 500_000])
def test_a_buffer_of_node_red_is_named_with_what_to_send_instead(size: int) -> None:
    buffer = {"type": "Buffer", "data": [7] * size}
    for body in (buffer, {"image": buffer}, {"images": [buffer]}, {"images": buffer}, {"inputs": buffer}):
        assert "a Buffer of numbers; send base64 (msg.payload.toString('base64'))" in reason(body)
        spaced = json.dumps(body, indent=1, separators=(",", " :  ")).encode()
        assert "a Buffer of numbers" in reason(spaced)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("begin", ["", " ", "\r\n"])
def test_wide_characters_are_named_with_what_to_send_instead(encoding: str, begin: str) -> None:
    payload = (begin + json.dumps({"inputs": TEXT})).encode(encoding)
    assert "UTF-16; send UTF-8" in reason(payload)
    with pytest.raises(TaskRefusedError, match="UTF-16; send UTF-8"):
        parsed(payload, "application/json")
