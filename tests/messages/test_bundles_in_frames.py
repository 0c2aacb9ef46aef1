"""Frames of several named tensors: all of them come back, and what does not fit together is refused."""

import struct
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitplace.messages import limits
from splitplace.messages.frames import (
    FrameError,
    SentTensor,
    TensorHeader,
    bodies,
    chunk_body,
    decode_bundle,
    decode_tensor,
    encode_bundle,
    encode_tensor,
    join_chunks,
    pack,
    tensor_frames,
    unpack,
)
from tests.support.message_examples import header_of, tensors

Arrays = dict[str, NDArray[Any]]


def header_for(arrays: Arrays, *, compress: bool = False) -> tuple[TensorHeader, bytes]:
    """The header and the body of some tensors."""
    bundle = encode_bundle(arrays, compress=compress)
    return header_of(np.zeros(1, np.uint8), "raw", b"\0").model_copy(update=bundle.fields), bundle.body


def receive(frames: list[bytes]) -> Arrays:
    """What a receiver does: read every frame, join the chunks, decode."""
    parts = [unpack(TensorHeader, frame) for frame in frames]
    chunks = {header.chunk: chunk_body(header, body) for header, body in parts}
    header = parts[0][0]
    found = decode_bundle(header, join_chunks(chunks, header.chunks))
    return {str(tensor.name): array for tensor, array in zip(header.tensors, found, strict=True)}


@st.composite
def bundles(draw: st.DrawFn) -> Arrays:
    """Two to six tensors of one number of images."""
    arrays = draw(st.lists(tensors(), min_size=2, max_size=6))
    images = min(len(array) for array in arrays)
    return {f"/tensor.{number}": array[:images] for number, array in enumerate(arrays)}


@given(arrays=bundles(), compress=st.booleans())
def test_several_tensors_come_back_bit_for_bit_under_their_names(arrays: Arrays, *, compress: bool) -> None:
    header, body = header_for(arrays, compress=compress)
    back = receive(list(tensor_frames(header, body)))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()
        assert back[name].flags.aligned


def test_several_large_tensors_travel_in_the_same_chunks() -> None:
    noise = np.random.default_rng(5).standard_normal((3, 100_001)).astype(np.float32)
    arrays: Arrays = {
        "odd": np.ones((3, 1), np.int8),
        "noise": noise,
        "zeros": np.zeros((3, 70_000), np.float16),
    }
    header, body = header_for(arrays, compress=True)
    assert [tensor.codec for tensor in header.tensors] == ["raw", "raw", "zstd"]
    frames = list(tensor_frames(header, body))
    assert len(frames) == header.chunks == 5
    assert max(map(len, frames)) <= limits.MAX_FRAME_BYTES
    back = receive(frames[::-1])
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


def test_a_single_tensor_travels_as_before_and_without_its_name() -> None:
    array = np.arange(60, dtype=np.float32).reshape(3, 20)
    header, body = header_for({"long name of a tensor": array})
    codec, encoded = encode_tensor(array, compress=False)
    before = pack(header_of(array, codec, encoded), encoded)
    assert pack(header, body) == before
    (length,) = struct.unpack_from(">I", before)
    assert {"name", "more"}.isdisjoint(msgpack.unpackb(before[4 : 4 + length]))
    assert np.array_equal(decode_tensor(header, body), array)


def test_what_is_handed_on_is_not_encoded_again() -> None:
    zeros = np.zeros((2, 5000), np.float32)
    header, body = header_for({"a": np.ones((2, 3), np.float32), "b": zeros}, compress=True)
    came = {str(sent.name): (sent, part) for sent, part in bodies(header, body)}
    on = encode_bundle({"b": zeros, "c": zeros}, compress=False, handed_on=came)
    assert [tensor.codec for tensor in on.tensors] == ["zstd", "raw"]
    assert on.body.startswith(bytes(came["b"][1]))
    alone = encode_bundle({"b": zeros}, compress=False, handed_on=came)
    assert (alone.tensors[0].name, alone.body) == (None, bytes(came["b"][1]))


def sent(name: str | None, shape: tuple[int, ...] = (2, 3), **changes: Any) -> dict[str, Any]:
    fields = {"name": name, "dtype": "uint8", "shape": shape, "codec": "raw", "encoded_bytes": 6}
    return fields | changes


@pytest.mark.parametrize(
    "fields",
    [
        {"more": [sent("b")]},  # the first has no name
        {"name": "a", "more": [sent(None)]},
        {"name": "a", "more": [sent("a")]},
        {"name": "a", "more": [sent("b"), sent("b")]},
        {"name": "a", "more": [sent("b", (3, 3))]},  # of other images
        {"name": "a", "more": [sent("b" * (limits.MAX_BUNDLE_NAME_BYTES + 1))]},
        {"name": "a", "more": [sent("é" * limits.MAX_BUNDLE_NAME_BYTES)]},
        {"name": "a", "more": [sent(f"b{number}") for number in range(limits.MAX_BUNDLE_TENSORS)]},
        {"name": "a", "more": [sent("b", encoded_bytes=0)]},
        {"name": "a", "more": [sent("b", dtype="float64")]},
        {"name": "a", "more": [sent("b", ())]},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_tensors_that_do_not_fit_together_are_refused(fields: dict[str, Any]) -> None:
    frame = pack(header_of(np.zeros((2, 3), np.uint8), "raw", bytes(6)), b"")
    (length,) = struct.unpack_from(">I", frame)
    packed = msgpack.packb(msgpack.unpackb(frame[4 : 4 + length]) | fields)
    with pytest.raises(FrameError):
        unpack(TensorHeader, struct.pack(">I", len(packed)) + packed)


def test_tensors_are_too_large_together_before_the_first_is_expanded() -> None:
    """Each alone would be allowed."""
    half = limits.MAX_TENSOR_BYTES // 2 + 64
    bomb = zstandard.compress(bytes(half))
    one = SentTensor(
        name="a", dtype="uint8", shape=(1, half // 64, 64), codec="zstd", encoded_bytes=len(bomb)
    )
    header = header_of(np.zeros(1, np.uint8), "raw", b"\0").model_copy(
        update=dict(one) | {"more": (one.model_copy(update={"name": "b"}),)}
    )
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="exceed"):
            decode_bundle(header, bomb + bomb)
        with pytest.raises(FrameError, match="exceed"):
            chunk_body(header, memoryview(bomb + bomb))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_encoded_tensors_are_bounded_together_too() -> None:
    tensor = SentTensor(
        name="a", dtype="uint8", shape=(1,), codec="zstd", encoded_bytes=limits.MAX_TENSOR_BYTES
    )
    header = header_of(np.zeros(1, np.uint8), "raw", b"\0").model_copy(
        update=dict(tensor) | {"more": (tensor.model_copy(update={"name": "b"}),)}
    )
    with pytest.raises(FrameError, match="exceed"):
        chunk_body(header, memoryview(bytes(limits.CHUNK_BYTES)))


def test_a_body_of_another_size_than_all_tensors_is_refused() -> None:
    header, body = header_for({"a": np.ones((2, 3), np.int8), "b": np.ones((2, 1), np.float32)})
    for wrong in (body[:-1], body + b"x", b""):
        with pytest.raises(FrameError):
            decode_bundle(header, wrong)


def test_several_tensors_are_no_single_one() -> None:
    header, body = header_for({"a": np.ones((2, 3), np.int8), "b": np.ones((2, 1), np.float32)})
    with pytest.raises(FrameError, match="2 tensors"):
        decode_tensor(header, body)
