"""Read and write the protobuf wire format: varints and length-delimited fields. Pure.

Enough for the heads of ONNX models and for checking pieces, so that nodes need no `onnx` package.
"""

from collections.abc import Iterator
from typing import NamedTuple

from splitplace.errors import SplitPlaceError

VARINT = 0
FIXED_64 = 1
LENGTH_DELIMITED = 2
FIXED_32 = 5
_FIXED_BYTES = {FIXED_64: 8, FIXED_32: 4}
_MOST_VARINT_BYTES = 10
_VARINT_BITS = 64


class WireError(SplitPlaceError):
    """Bytes that are no protobuf message."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    kind: int
    """Wire type."""
    value: int
    """The number of a varint; 0 for other types."""
    payload: memoryview
    """The bytes of any other type; empty for a varint."""


def fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a message in order.

    Raises:
        WireError: The message is cut short, or holds a field of an unknown type.
    """
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise WireError("field number 0")
        if kind == VARINT:
            value, position = _varint(message, position)
            yield Field(number, kind, value, message[:0])
            continue
        if kind == LENGTH_DELIMITED:
            length, position = _varint(message, position)
        elif kind in _FIXED_BYTES:
            length = _FIXED_BYTES[kind]
        else:
            raise WireError(f"field {number} has wire type {kind}")
        if length > len(message) - position:
            raise WireError(f"field {number} is cut short")
        yield Field(number, kind, 0, message[position : position + length])
        position += length


def numbers(field: Field) -> Iterator[int]:
    """Yield the values of a repeated varint field, packed or not. Raises WireError."""
    if field.kind == VARINT:
        yield field.value
        return
    position = 0
    while position < len(field.payload):
        value, position = _varint(field.payload, position)
        yield value


def text(field: Field) -> str:
    """Return the text of a field. Raises WireError."""
    if field.kind != LENGTH_DELIMITED:
        raise WireError(f"field {field.number} is no text")
    try:
        return str(field.payload, "utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"field {field.number} is no text: {error}") from error


def number_field(number: int, value: int) -> bytes:
    """Return a varint field. Negative values are written as protobuf's `int64`."""
    return _encoded(number << 3 | VARINT) + _encoded(value % (1 << _VARINT_BITS))


def bytes_field(number: int, payload: bytes) -> bytes:
    """Return a length-delimited field: bytes or a message."""
    return _encoded(number << 3 | LENGTH_DELIMITED) + _encoded(len(payload)) + payload


def text_field(number: int, content: str) -> bytes:
    """Return a text field."""
    return bytes_field(number, content.encode())


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits to a byte
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position behind it."""
    value = 0
    for index in range(_MOST_VARINT_BYTES):
        if position + index >= len(message):
            raise WireError("a number is cut short")
        byte = message[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more follow
            return value % (1 << _VARINT_BITS), position + index + 1
    raise WireError(f"a number has more than {_MOST_VARINT_BYTES} bytes")
