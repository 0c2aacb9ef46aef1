"""Binary frames: what is encoded comes back, and whatever else arrives is a FrameError."""

import contextlib
import random
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
    FragmentHeader,
    FrameError,
    Route,
    SentTensor,
    TensorHeader,
    chunk_body,
    decode_tensor,
    decompress,
    encode_tensor,
    join_chunks,
    pack,
    tensor_frames,
    unpack,
)
from splitplace.messages.pieces import PieceRun
from splitplace.messages.task import StageReport
from splitplace.messages.tensors import ITEM_BYTES
from tests.support.message_examples import HASH, client_names, hashes, header_of, names, routes, tensors

floats = st.floats(0, 1e12)


def receive(frames: list[bytes]) -> NDArray[Any]:
    """What a receiver does: read every frame, join the chunks, decode."""
    parts = [unpack(TensorHeader, frame) for frame in frames]
    chunks = {header.chunk: chunk_body(header, body) for header, body in parts}
    header = parts[0][0]
    return decode_tensor(header, join_chunks(chunks, header.chunks))


@given(array=tensors(), compress=st.booleans())
def test_a_tensor_of_any_dtype_and_shape_comes_back_bit_for_bit(
    array: NDArray[Any], *, compress: bool
) -> None:
    codec, encoded = encode_tensor(array, compress=compress)
    back = receive(list(tensor_frames(header_of(array, codec, encoded), encoded)))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(
    fields=st.fixed_dictionaries(
        {
            "task": st.builds("{}.{}".format, client_names, client_names),
            "route": st.none() | routes,
            "stage": names,
            "trace": st.lists(
                st.builds(StageReport, stage=names, node=names, queue_ms=floats, compute_ms=floats),
                max_size=3,
            ).map(tuple),
            "moved_bytes": st.integers(0, 2**53),
        }
    ),
    body=st.binary(min_size=1, max_size=100),
)
def test_every_header_comes_back_unchanged(fields: dict[str, Any], body: bytes) -> None:
    header = header_of(np.frombuffer(body, np.uint8), "raw", body, **fields)
    back, rest = unpack(TensorHeader, pack(header, body))
    assert back == header
    assert rest == body


@given(fragment=hashes, chunk=st.integers(0, 1024), body=st.binary(max_size=100))
def test_fragment_chunks_come_back_unchanged(fragment: str, chunk: int, body: bytes) -> None:
    header = FragmentHeader(fragment=fragment, file_bytes=limits.MAX_FILE_BYTES, chunk=chunk)
    back, rest = unpack(FragmentHeader, pack(header, body))
    assert (back, bytes(rest)) == (header, body)


@pytest.mark.parametrize("compress", [False, True])
def test_big_tensors_travel_in_chunks_that_may_arrive_in_any_order(*, compress: bool) -> None:
    noise = np.random.default_rng(7).standard_normal((9, 3, 200, 201)).astype(np.float16)
    noise[:4] = 0  # so that zstd pays, and still fills several chunks
    codec, encoded = encode_tensor(noise, compress=compress)
    assert codec == ("zstd" if compress else "raw")
    frames = list(tensor_frames(header_of(noise, codec, encoded), encoded))
    assert len(frames) > 2
    assert max(map(len, frames)) <= limits.MAX_FRAME_BYTES
    random.Random(7).shuffle(frames)
    assert np.array_equal(receive(frames), noise)


def test_bodies_start_at_a_multiple_of_16_bytes() -> None:
    array = np.arange(5, dtype=np.float32)
    codec, encoded = encode_tensor(array, compress=False)
    for length in range(1, 33):
        frame = pack(header_of(array, codec, encoded, stage="s" * length), encoded)
        _, body = unpack(TensorHeader, frame)
        assert (len(frame) - len(body)) % 16 == 0


def test_zstd_is_dropped_where_it_does_not_pay() -> None:
    noise = np.random.default_rng(1).integers(0, 256, 10_000).astype(np.uint8)
    assert encode_tensor(noise, compress=True) == ("raw", noise.tobytes())


def test_the_greatest_route_of_a_variant_and_the_largest_bundle_fit_the_header() -> None:
    """64 stages with the longest names, as a chain and as a star, before the first and after the last."""
    longest = "n" * 64
    run = PieceRun(chain=longest, first=limits.MAX_PIECES - 1, end=limits.MAX_PIECES)

    def stage(following: tuple[Route, ...] = ()) -> Route:
        return Route(stage=longest, node=longest, fragment=HASH, run=run, next=following)

    chain = stage()
    for _ in range(limits.MAX_STAGES - 1):
        chain = stage((chain,))
    star = stage((stage(),) * (limits.MAX_STAGES - 1))
    report = StageReport(stage=longest, node=longest, queue_ms=1e11 / 3, compute_ms=1e11 / 3)
    array = np.zeros((1,) * 9, np.float16)
    several = [
        SentTensor(
            name=f"{number:n>{limits.MAX_BUNDLE_NAME_BYTES}}",
            dtype="float16",
            shape=(1024, *(1 << 20,) * limits.MAX_TENSOR_RANK),
            codec="zstd",
            encoded_bytes=limits.MAX_TENSOR_BYTES,
        )
        for number in range(limits.MAX_BUNDLE_TENSORS)
    ]
    for route, trace in ((chain, ()), (star, ()), (None, (report,) * limits.MAX_STAGES)):
        header = header_of(
            array,
            "raw",
            b"\0",
            name=several[0].name,
            shape=several[0].shape,
            more=tuple(several[1:]),
            route=route,
            trace=trace,
            stage=longest,
            application=longest,
            variant=longest,
            task=f"{longest}.{longest}",
            moved_bytes=2**53,
        )
        assert unpack(TensorHeader, pack(header, b"\0"))[0] == header


def valid_frame() -> bytes:
    array = (np.arange(60, dtype=np.float32) // 8).reshape(3, 20)
    codec, encoded = encode_tensor(array, compress=True)
    assert codec == "zstd"
    return pack(header_of(array, codec, encoded), encoded)


def read(frame: bytes) -> NDArray[Any]:
    header, body = unpack(TensorHeader, frame)
    return decode_tensor(header, chunk_body(header, body))


def test_a_truncated_frame_is_refused_at_every_length() -> None:
    frame = valid_frame()
    for length in range(len(frame)):
        with pytest.raises(FrameError):
            read(frame[:length])


def test_a_flipped_bit_anywhere_gives_a_tensor_or_a_frame_error() -> None:
    """Also inside the zstd data, which has no checksum: such a tensor has other values, not another size."""
    frame = valid_frame()
    refused = 0
    for position in range(len(frame)):
        for bit in range(8):
            broken = bytearray(frame)
            broken[position] ^= 1 << bit
            try:
                array = read(bytes(broken))
            except FrameError:
                refused += 1
            else:
                assert array.nbytes <= 240
    assert refused > len(frame)


@given(noise=st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(FrameError):
        unpack(TensorHeader, noise)


@given(noise=st.binary(max_size=200))
def test_noise_behind_a_right_length_field_is_refused(noise: bytes) -> None:
    with pytest.raises(FrameError):
        unpack(TensorHeader, struct.pack(">I", len(noise)) + noise)


msgpack_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = sorted(TensorHeader.model_fields)


@given(field=st.sampled_from([*FIELDS, "extra"]), value=msgpack_values)
def test_any_field_may_hold_anything_and_nothing_but_a_frame_error_comes_of_it(
    field: str, value: object
) -> None:
    frame = valid_frame()
    (length,) = struct.unpack_from(">I", frame)
    fields = msgpack.unpackb(frame[4 : 4 + length])
    body = frame[4 + length + -(4 + length) % 16 :]
    packed = msgpack.packb(fields | {field: value})
    changed = struct.pack(">I", len(packed)) + packed + bytes(-(4 + len(packed)) % 16) + body
    if field == "extra":  # of a newer version
        read(changed)
        return
    with contextlib.suppress(FrameError):
        read(changed)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x91" * 5000 + b"\xc0",  # arrays in arrays
        b"\x81\xa1a" * 5000 + b"\xc0",  # maps in maps
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million items that are not there
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x81\xc4\x01a\x01",  # bytes for a key
        b"\x81\x01\x01",  # a number for a key
        b"\xd5\x2a\x00\x00",  # an extension type
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\xc7\x0c\xff" + b"\xff" * 12,  # an impossible timestamp
        b"\xa1\xff",  # not UTF-8
        b"\xc1",  # a byte msgpack never uses
        b"\x80\x80",  # something behind the end
    ],
    ids=lambda packed: packed[:6].hex() or "empty",
)
def test_hostile_msgpack_is_refused(packed: bytes) -> None:
    with pytest.raises(FrameError):
        unpack(TensorHeader, struct.pack(">I", len(packed)) + packed)


def test_a_route_of_a_variant_is_read_and_can_be_sent_on_and_a_longer_one_is_refused() -> None:
    route: dict[str, Any] = {"stage": "s", "node": "n", "fragment": HASH}
    frame = valid_frame()
    (length,) = struct.unpack_from(">I", frame)
    fields = msgpack.unpackb(frame[4 : 4 + length])
    deepest = 0
    for depth in range(1, 400):
        route = {"stage": "s", "node": "n", "fragment": HASH, "next": [route]}
        packed = msgpack.packb(fields | {"route": route})
        try:
            header, _ = unpack(TensorHeader, struct.pack(">I", len(packed)) + packed)
        except FrameError:
            break
        assert unpack(TensorHeader, pack(header, b""))[0] == header
        deepest = depth
    assert deepest == limits.MAX_STAGES - 1


def test_a_header_that_claims_more_than_the_limit_is_not_even_looked_at() -> None:
    packed = b"\xc0" * (limits.MAX_HEADER_BYTES + 1)
    with pytest.raises(FrameError, match="limit"):
        unpack(TensorHeader, struct.pack(">I", len(packed)) + packed)


def test_chunk_number_and_chunk_size_must_agree_with_the_header() -> None:
    array = np.zeros(10, np.uint8)
    good = header_of(array, "raw", bytes(10))
    assert chunk_body(good, memoryview(bytes(10))) == bytes(10)
    for header, body in (
        (good, bytes(9)),
        (good, bytes(11)),
        (good.model_copy(update={"chunk": 1}), bytes(10)),
        (good.model_copy(update={"shape": (1 << 20, 1 << 20)}), bytes(10)),
    ):
        with pytest.raises(FrameError):
            chunk_body(header, memoryview(body))


def test_a_tensor_of_another_size_than_its_shape_needs_is_refused() -> None:
    array = np.zeros((3, 20), np.float32)
    for codec in ("raw", "zstd"):
        encoded = zstandard.compress(bytes(236)) if codec == "zstd" else bytes(236)
        with pytest.raises(FrameError):
            decode_tensor(header_of(array, codec, encoded), encoded)


def zstd_claiming(content_bytes: int) -> bytes:
    """A zstd frame of 16 bytes whose header claims any size of content."""
    magic, single_segment_with_8_byte_size = 0xFD2FB528, 0b1110_0000
    empty_last_block = b"\x01\x00\x00"
    return struct.pack("<IBQ", magic, single_segment_with_8_byte_size, content_bytes) + empty_last_block


def peak_bytes_of_refusing(encoded: bytes, expected: int) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            decompress(encoded, expected)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("declares_its_size", [True, False])
def test_a_decompression_bomb_is_refused_before_it_expands(*, declares_its_size: bool) -> None:
    expanded = 64 * limits.MEBIBYTE
    bomb = zstandard.ZstdCompressor(write_content_size=declares_its_size).compress(bytes(expanded))
    assert len(bomb) < expanded / 1000
    assert peak_bytes_of_refusing(bomb, 1000) < 100_000


@pytest.mark.parametrize("claimed", [limits.MAX_TENSOR_BYTES + 1, 1 << 46, (1 << 64) - 1])
def test_a_header_and_a_zstd_frame_that_claim_the_same_absurd_size_are_refused(claimed: int) -> None:
    assert zstandard.get_frame_parameters(zstd_claiming(10)).content_size == 10
    assert peak_bytes_of_refusing(zstd_claiming(claimed), claimed) < 100_000


def test_nothing_may_follow_the_compressed_data() -> None:
    packed = zstandard.compress(b"abc")
    assert decompress(packed, 3) == b"abc"
    for tail in (b"x", zstandard.compress(b"def"), struct.pack("<II", 0x184D2A50, 4) + b"skip"):
        with pytest.raises(FrameError):
            decompress(packed + tail, 3)


def test_item_sizes_are_those_of_numpy() -> None:
    assert {dtype: np.dtype(dtype).itemsize for dtype in ITEM_BYTES} == ITEM_BYTES
