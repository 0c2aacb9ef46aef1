"""Binary frames: chunks of tensors and of fragment files.

Layout: 4-byte big-endian header length, msgpack header, zero padding to a multiple of 16 bytes, raw body.
The header states everything about the body (dtype, shape, codec); nothing is guessed. Where several tensors
cross a cut, the header names them all, and their bytes follow each other. What is larger than one chunk
travels as several frames whose headers differ only in `chunk`.

Every tensor frame carries its **route**: which node runs which fragment on it and where the outputs go. A
node keeps nothing about a task. So a frame may arrive before any other message about the task, and a
restarted node has forgotten nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar, cast

import msgpack
import numpy as np
import zstandard
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from splitplace.errors import SplitPlaceError
from splitplace.messages.base import Attempt, Count, Message, Milliseconds, Name, Part, Sha256
from splitplace.messages.limits import (
    CHUNK_BYTES,
    MAX_BUNDLE_NAME_BYTES,
    MAX_BUNDLE_TENSORS,
    MAX_CHUNKS,
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    MAX_MICRO_BATCHES,
    MAX_STAGES,
    MAX_TENSOR_BYTES,
    MAX_TENSOR_RANK,
)
from splitplace.messages.names import TaskKey
from splitplace.messages.pieces import PieceRun
from splitplace.messages.task import StageReport
from splitplace.messages.tensors import ITEM_BYTES, Dimension, DType, TensorName

Buffer = bytes | bytearray | memoryview
Codec = Literal["raw", "zstd"]

GATEWAY_SENDER = "_gateway"
AGGREGATOR_INBOX = "_aggregator"
"""Who sends inputs and who gets final outputs: no node may have a name with `_` at its start."""

_LENGTH = struct.Struct(">I")
_ALIGNMENT = 16
_ZSTD_LEVEL = -1  # measured: negative levels pass dense tensors at 6 GB/s; above 1 gains nothing


class FrameError(SplitPlaceError, ValueError):
    """A binary frame that is broken, too big, or not what its header says."""


class Route(Part):
    """A stage, the node that runs it, and the stages that read its output (none: the aggregator does)."""

    stage: Name
    node: Name
    fragment: Sha256
    run: PieceRun | None = None
    """The pieces of the fragment, where no manifest describes it: they were grouped for this task."""
    next: Annotated[tuple[Route, ...], Field(max_length=MAX_STAGES)] = ()


class SentTensor(Part):
    """One tensor in the body of a frame."""

    name: TensorName | None = None
    """None where it is the only one."""
    dtype: DType
    shape: Annotated[tuple[Dimension, ...], Field(min_length=1, max_length=MAX_TENSOR_RANK + 1)]
    """Batch first."""
    codec: Codec
    encoded_bytes: Annotated[int, Field(ge=1, le=MAX_TENSOR_BYTES)]

    @property
    def decoded_bytes(self) -> int:
        """Its size once it is decoded."""
        size = ITEM_BYTES[self.dtype]
        for dimension in self.shape:
            size *= dimension
        return size


class TensorHeader(Message, SentTensor):
    """Everything a receiver must know of one micro-batch of one stage's input (or of a final output).

    The fields of `SentTensor` describe the only tensor, or the first of several.
    """

    task: TaskKey
    attempt: Attempt
    application: Name
    variant: Name
    micro_batch: Annotated[int, Field(ge=0, lt=MAX_MICRO_BATCHES)]
    micro_batches: Annotated[int, Field(ge=1, le=MAX_MICRO_BATCHES)]
    expires_ms: Milliseconds
    """Time left until deadline plus grace: then nobody wants the answer any more."""
    more: Annotated[tuple[SentTensor, ...], Field(max_length=MAX_BUNDLE_TENSORS - 1)] = ()
    """The other tensors, in the order of their bytes."""
    chunk: Annotated[int, Field(ge=0, lt=MAX_CHUNKS)] = 0
    route: Route | None
    """What to run on it; None for an output on its way to the aggregator."""
    stage: Name
    """The stage this tensor is the input of, or, for an output, the stage that made it."""
    trace: Annotated[tuple[StageReport, ...], Field(max_length=MAX_STAGES)] = ()
    """Cost of the stages before, for this micro-batch."""
    moved_bytes: Count = 0
    """Encoded bytes of this micro-batch's tensors before this one, along its path."""
    second_run: bool = False
    """Whether it is run a second time, because the first run was overdue."""

    @property
    def receiver(self) -> str:
        """The node that the route names, or the aggregator for a final output. A level of the topic."""
        return AGGREGATOR_INBOX if self.route is None else self.route.node

    @property
    def sender(self) -> str:
        """The node that ran the last stage, or the gateway if none has run yet. A level of the topic."""
        return self.trace[-1].node if self.trace else GATEWAY_SENDER

    @property
    def tensors(self) -> tuple[SentTensor, ...]:
        """All tensors, in the order of their bytes."""
        return (self, *self.more)

    @property
    def images(self) -> int:
        """Number of inputs of the task in this micro-batch."""
        return self.shape[0]

    @property
    def chunks(self) -> int:
        """Number of frames that all encoded tensors fill together."""
        return -(-self.body_bytes // CHUNK_BYTES)

    @property
    def body_bytes(self) -> int:
        """Encoded bytes of all tensors."""
        return self.encoded_bytes + sum([tensor.encoded_bytes for tensor in self.more])

    @property
    def raw_bytes(self) -> int:
        """Decoded bytes of all tensors."""
        return self.decoded_bytes + sum([tensor.decoded_bytes for tensor in self.more])

    @model_validator(mode="after")
    def _has_a_route_of_a_variant(self) -> Self:
        """A route has no more stages than a variant: comparing or sending a deeper one is a recursion."""
        stages, waiting = 0, [] if self.route is None else [self.route]
        while waiting:
            stages += 1
            waiting.extend(waiting.pop().next)
        if stages > MAX_STAGES:
            raise ValueError(f"a route of {stages} stages; a variant has at most {MAX_STAGES}")
        return self

    @model_validator(mode="after")
    def _is_a_bundle(self) -> Self:
        """Several tensors have different names, not too long ones, and as many images each."""
        if not self.more:
            return self
        names = {tensor.name for tensor in self.tensors}
        if None in names or len(names) <= len(self.more):
            raise ValueError("several tensors need a name each, every one its own")
        if max(len((name or "").encode()) for name in names) > MAX_BUNDLE_NAME_BYTES:
            raise ValueError(f"a name has more than {MAX_BUNDLE_NAME_BYTES} bytes")
        if len({tensor.shape[0] for tensor in self.tensors}) > 1:
            raise ValueError("the tensors are not of the same number of images")
        return self


class FragmentHeader(Message):
    """One chunk of a file of a fragment, on `fragment/<sha256>/chunk`."""

    fragment: Sha256
    file_bytes: Annotated[int, Field(ge=1, le=MAX_FILE_BYTES)]
    chunk: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES // CHUNK_BYTES)]


HeaderT = TypeVar("HeaderT", bound=Message)


def pack(header: Message, body: Buffer) -> bytes:
    """One frame of a header and its body."""
    packed: bytes = msgpack.packb(header.model_dump(exclude_defaults=True))
    padding = -(_LENGTH.size + len(packed)) % _ALIGNMENT
    return b"".join((_LENGTH.pack(len(packed)), packed, bytes(padding), body))


def unpack(kind: type[HeaderT], frame: Buffer) -> tuple[HeaderT, memoryview]:
    """Header and body of a frame; the body is a view, nothing is copied.

    Raises:
        FrameError: truncated, header too big, not msgpack, or not a valid `kind`.
    """
    view = memoryview(frame)
    if len(view) < _LENGTH.size:
        raise FrameError(f"frame of {len(view)} bytes is shorter than its length field")
    (length,) = _LENGTH.unpack_from(view)
    if length > MAX_HEADER_BYTES or _LENGTH.size + length > len(view):
        raise FrameError(
            f"header of {length} bytes does not fit a frame of {len(view)} (limit {MAX_HEADER_BYTES})"
        )
    try:
        fields = msgpack.unpackb(view[_LENGTH.size : _LENGTH.size + length], use_list=False)
        header = kind.model_validate(fields)
    except ValidationError as error:
        raise FrameError(f"frame header: {error.errors(include_url=False, include_input=False)[0]}") from None
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise FrameError(f"frame header is not msgpack: {error}") from None
    start = _LENGTH.size + length
    start += -start % _ALIGNMENT
    return header, view[start:]


def chunk_body(header: TensorHeader, body: memoryview) -> memoryview:
    """Return the body of one tensor frame, checked to have the size that its header states.

    Raises:
        FrameError: chunk number or size disagrees with the header, or its tensors are too big together.
    """
    _check_size(header)
    if header.chunk >= header.chunks:
        raise FrameError(f"chunk {header.chunk} of {header.chunks}")
    expected = min(CHUNK_BYTES, header.body_bytes - header.chunk * CHUNK_BYTES)
    if len(body) != expected:
        raise FrameError(f"chunk {header.chunk} holds {len(body)} bytes, its header says {expected}")
    return body


def encode_tensor(array: NDArray[Any], *, compress: bool) -> tuple[Codec, bytes]:
    """Codec and bytes of a tensor; zstd is dropped again where it does not pay.

    Args:
        array: any shape, C-ordered or not, of a dtype in `ITEM_BYTES`.
        compress: try zstd. Not worth its time on links faster than about 150 MB/s.
    """
    raw = np.ascontiguousarray(array)
    if compress:
        packed = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(raw.data.cast("B") if raw.size else b"")
        if len(packed) < 0.95 * raw.nbytes:
            return "zstd", packed
    return "raw", raw.tobytes()


def decode_tensor(header: TensorHeader, encoded: Buffer) -> NDArray[Any]:
    """The only tensor of all chunks joined: shape `header.shape`, read-only.

    Raises:
        FrameError: there are several tensors, or what `decode_bundle` raises it for.
    """
    if header.more:
        raise FrameError(f"{len(header.tensors)} tensors, expected one")
    (array,) = decode_bundle(header, encoded)
    return array


def decode_bundle(header: TensorHeader, encoded: Buffer) -> list[NDArray[Any]]:
    """The tensors of all chunks joined, in the order of `header.tensors`, read-only.

    Raises:
        FrameError: sizes disagree, or the zstd data is broken or expands beyond what the header says.
    """
    _check_size(header)  # of all together, before the first is expanded
    return [_decoded(tensor, part) for tensor, part in bodies(header, encoded)]


def bodies(header: TensorHeader, encoded: Buffer) -> Iterator[tuple[SentTensor, Buffer]]:
    """Yield each tensor's description and its encoded bytes, without a copy.

    Raises:
        FrameError: there are more or fewer bytes than the header says.
    """
    if len(encoded) != header.body_bytes:
        raise FrameError(f"{len(encoded)} bytes, the header says {header.body_bytes}")
    if not header.more:
        yield header, encoded
        return
    view, start = memoryview(encoded), 0
    for tensor in header.tensors:
        yield tensor, view[start : start + tensor.encoded_bytes]
        start += tensor.encoded_bytes


def _decoded(tensor: SentTensor, encoded: Buffer) -> NDArray[Any]:
    size = tensor.decoded_bytes
    raw = decompress(encoded, size) if tensor.codec == "zstd" else encoded
    if len(raw) != size:
        raise FrameError(f"decoded to {len(raw)} bytes, shape {tensor.shape} of {tensor.dtype} needs {size}")
    array = np.frombuffer(raw, dtype=tensor.dtype).reshape(tensor.shape)
    return array if array.flags.aligned else array.copy()


def _check_size(header: TensorHeader) -> None:
    """Raise FrameError for tensors that together are larger than any may be, encoded or decoded."""
    size = max(header.raw_bytes, header.body_bytes)
    if size > MAX_TENSOR_BYTES:
        raise FrameError(f"tensors of {size} bytes exceed {MAX_TENSOR_BYTES}")


@dataclass(frozen=True, slots=True)
class EncodedBundle:
    """One or several tensors as they travel."""

    tensors: tuple[SentTensor, ...]
    body: bytes
    """Their bytes, one after the other."""

    @property
    def raw_bytes(self) -> int:
        """Decoded bytes of all tensors."""
        return sum([tensor.decoded_bytes for tensor in self.tensors])

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a `TensorHeader` that describe it."""
        first, *more = self.tensors
        return {**{name: getattr(first, name) for name in SentTensor.model_fields}, "more": tuple(more)}


def encode_bundle(
    arrays: Mapping[str, NDArray[Any]],
    *,
    compress: bool,
    handed_on: Mapping[str, tuple[SentTensor, Buffer]] | None = None,
) -> EncodedBundle:
    """Encode tensors by their names; a single one travels without its name.

    Args:
        arrays: at least one, each of any shape and of a dtype in `ITEM_BYTES`.
        compress: try zstd, on each tensor by itself.
        handed_on: tensors among them that are encoded already, as `bodies` gives them.
    """
    tensors: list[SentTensor] = []
    parts: list[Buffer] = []
    for name, array in arrays.items():
        known = name if len(arrays) > 1 else None
        if handed_on and name in handed_on:
            sent, encoded = handed_on[name]
            codec = sent.codec
        else:
            codec, encoded = encode_tensor(array, compress=compress)
        parts.append(encoded)
        tensors.append(_sent(known, array, codec, encoded))
    return EncodedBundle(tuple(tensors), bytes(parts[0]) if len(parts) == 1 else b"".join(parts))


def _sent(name: str | None, array: NDArray[Any], codec: Codec, encoded: Buffer) -> SentTensor:
    """Describe an encoded tensor. It is ours, and checked again by its receiver: validating it takes time."""
    return SentTensor.model_construct(
        name=name,
        dtype=cast("DType", array.dtype.name),
        shape=array.shape,
        codec=codec,
        encoded_bytes=len(encoded),
    )


def decompress(encoded: Buffer, expected_bytes: int) -> bytes:
    """Zstd content of exactly the expected size; a bomb is refused by its header, before anything expands.

    Raises:
        FrameError: broken data, another size than expected, or more than `MAX_TENSOR_BYTES`.
    """
    if expected_bytes > MAX_TENSOR_BYTES:
        raise FrameError(f"tensor of {expected_bytes} bytes exceeds {MAX_TENSOR_BYTES}")
    try:
        parameters = zstandard.get_frame_parameters(encoded)
        if parameters.content_size != expected_bytes:
            raise FrameError(f"zstd content of {parameters.content_size} bytes, expected {expected_bytes}")
        return zstandard.ZstdDecompressor(max_window_size=MAX_TENSOR_BYTES).decompress(
            encoded, max_output_size=expected_bytes, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise FrameError(f"broken zstd data: {error}") from None


def tensor_frames(header: TensorHeader, encoded: bytes) -> Iterator[bytes]:
    """The frames of one encoded tensor or bundle, in order."""
    view = memoryview(encoded)
    for chunk in range(header.chunks):
        body = view[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]
        yield pack(header.model_copy(update={"chunk": chunk}), body)


def join_chunks(chunks: Mapping[int, Buffer], count: int) -> Buffer:
    """The encoded tensor of its chunks 0..count-1; one chunk is passed on without a copy."""
    return chunks[0] if count == 1 else b"".join(chunks[index] for index in range(count))
