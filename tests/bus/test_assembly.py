"""Chunked tensors are put together whatever happens to their frames on the way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.bus.assembly import TensorAssembly
from splitplace.messages.frames import (
    FrameError,
    TensorHeader,
    decode_tensor,
    encode_tensor,
    tensor_frames,
    unpack,
)
from splitplace.messages.limits import CHUNK_BYTES


def _header(**changes: object) -> TensorHeader:
    fields: dict[str, object] = {
        "task": "sensor.1",
        "attempt": 1,
        "application": "tiny",
        "variant": "whole",
        "micro_batch": 0,
        "micro_batches": 4,
        "expires_ms": 1000.0,
        "dtype": "uint8",
        "shape": (1, CHUNK_BYTES),
        "codec": "raw",
        "encoded_bytes": CHUNK_BYTES,
        "route": None,
        "stage": "whole",
    }
    return TensorHeader.model_validate(fields | changes)


def _frames(chunks: int, **changes: object) -> list[tuple[TensorHeader, memoryview]]:
    """The frames of a raw tensor of so many chunks, the last of them short."""
    size = (chunks - 1) * CHUNK_BYTES + 10
    header = _header(shape=(1, size), encoded_bytes=size, **changes)
    body = (np.arange(size) % 251 + header.micro_batch).astype(np.uint8).tobytes()
    return [unpack(TensorHeader, frame) for frame in tensor_frames(header, body)]


_THREE_TENSORS = [frame for number in range(3) for frame in _frames(3 - number, micro_batch=number)]


@given(
    order=st.permutations(range(len(_THREE_TENSORS))),
    repeats=st.lists(st.integers(0, len(_THREE_TENSORS) - 1), max_size=8),
    seed=st.randoms(use_true_random=False),
)
def test_frames_in_any_order_and_number_give_each_tensor_exactly_once(
    order: list[int], repeats: list[int], seed: object
) -> None:
    arrivals = [*order, *repeats]
    seed.shuffle(arrivals)  # type: ignore[attr-defined]
    assembly = TensorAssembly()
    complete = [assembly.add(*_THREE_TENSORS[index], now_ms=0.0) for index in arrivals]

    tensors = {made[0].micro_batch: bytes(made[1]) for made in complete if made}
    assert sum(made is not None for made in complete) == 3
    for number, content in tensors.items():
        expected = b"".join(bytes(body) for _, body in _frames(3 - number, micro_batch=number))
        assert content == expected
    assert (len(assembly), assembly.waiting_bytes) == (0, 0)


def test_a_compressed_tensor_of_many_chunks_decodes_to_what_was_sent() -> None:
    array = np.random.default_rng(0).normal(size=(4, 300_000)).astype(np.float32)
    array[array < 0] = 0
    codec, encoded = encode_tensor(array, compress=True)
    header = _header(dtype="float32", shape=array.shape, codec=codec, encoded_bytes=len(encoded))
    assert codec == "zstd"
    assert header.chunks > 2
    assembly = TensorAssembly()
    frames = [unpack(TensorHeader, frame) for frame in tensor_frames(header, encoded)]
    *unfinished, made = [assembly.add(*frame, now_ms=0.0) for frame in reversed(frames)]

    assert not any(unfinished)
    assert made is not None
    np.testing.assert_array_equal(decode_tensor(*made), array)


def test_a_chunk_whose_header_contradicts_the_first_is_refused_and_harms_nothing() -> None:
    first, second = _frames(2)
    forged = second[0].model_copy(update={"dtype": "int8"})
    assembly = TensorAssembly()
    assembly.add(*first, now_ms=0.0)

    with pytest.raises(FrameError, match="contradicts"):
        assembly.add(forged, second[1], now_ms=0.0)
    assert assembly.add(*second, now_ms=0.0) is not None


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES + 1])
def test_a_chunk_of_another_size_than_its_header_says_is_refused(size: int) -> None:
    with pytest.raises(FrameError, match="holds"):
        TensorAssembly().add(_header(), memoryview(bytes(size)), now_ms=0.0)


def test_attempts_stages_inputs_and_outputs_are_different_tensors() -> None:
    body = memoryview(bytes(CHUNK_BYTES))
    route = {"stage": "whole", "node": "n", "fragment": "0" * 64}
    assembly = TensorAssembly()
    for header in (_header(), _header(attempt=2), _header(stage="other"), _header(route=route)):
        assert assembly.add(header, body, now_ms=0.0) is not None
        assert assembly.add(header, body, now_ms=0.0) is None


def test_a_tensor_for_which_there_is_no_room_is_refused_until_another_one_is_complete() -> None:
    one, two = _frames(2, micro_batch=1), _frames(2, micro_batch=2)
    assembly = TensorAssembly(max_bytes=one[0][0].encoded_bytes + 1)
    assembly.add(*one[0], now_ms=0.0)
    with pytest.raises(FrameError, match="no room"):
        assembly.add(*two[0], now_ms=0.0)

    assert assembly.add(*one[1], now_ms=0.0) is not None
    assert assembly.add(*two[0], now_ms=0.0) is None
    assert assembly.add(*two[1], now_ms=0.0) is not None


def test_no_more_tensors_wait_than_allowed_and_expired_ones_make_room_by_themselves() -> None:
    assembly = TensorAssembly(max_tensors=2)
    for number in range(2):
        assembly.add(*_frames(2, micro_batch=number)[0], now_ms=0.0)
    with pytest.raises(FrameError, match="no room"):
        assembly.add(*_frames(2, micro_batch=2)[0], now_ms=999.0)

    assembly.add(*_frames(2, micro_batch=2)[0], now_ms=1000.0)
    assert len(assembly) == 1


def test_a_tensor_is_given_up_when_its_time_is_over() -> None:
    assembly = TensorAssembly()
    assembly.add(*_frames(2)[0], now_ms=500.0)
    assert assembly.expire(1499.0) == 0
    assert assembly.expire(1500.0) == 1
    assert (len(assembly), assembly.waiting_bytes) == (0, 0)


def test_a_tensor_is_given_up_when_its_chunks_stop_coming_however_long_its_deadline() -> None:
    first, second, third = _frames(3, expires_ms=1e9)
    assembly = TensorAssembly(max_idle_ms=100.0)
    assembly.add(*first, now_ms=0.0)
    assembly.add(*second, now_ms=90.0)
    assert assembly.expire(189.0) == 0
    assert assembly.expire(190.0) == 1
    assert assembly.add(*third, now_ms=191.0) is None


def test_dropping_a_task_spares_later_attempts_and_other_tasks() -> None:
    assembly = TensorAssembly()
    for changes in ({"attempt": 1}, {"attempt": 2}, {"attempt": 3}, {"task": "sensor.2"}):
        assembly.add(*_frames(2, **changes)[0], now_ms=0.0)
    assert assembly.drop("sensor.1", 2) == 2
    assert len(assembly) == 2


def test_only_so_many_completed_tensors_are_remembered_and_none_beyond_its_time() -> None:
    body = memoryview(bytes(CHUNK_BYTES))
    headers = [_header(micro_batch=number) for number in range(3)]
    assembly = TensorAssembly(max_remembered=2)
    for header in headers:
        assembly.add(header, body, now_ms=0.0)
    assert assembly.add(headers[0], body, now_ms=0.0) is not None
    assert assembly.add(headers[2], body, now_ms=0.0) is None
    assembly.expire(1000.0)
    assert assembly.add(headers[2], body, now_ms=1000.0) is not None
