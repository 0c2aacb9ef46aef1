"""Reads the fields of a protobuf message without its schema. Nodes have no `onnx` package; this is enough.

Nothing is copied: values are views into the message.
"""

from collections.abc import Iterator

from splitplace.errors import SplitPlaceError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BITS = 70
_INT64_BITS = 64


class ProtobufError(SplitPlaceError, ValueError):
    """Bytes that are no protobuf message."""


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field: an int for a varint, else the bytes of the value.

    Raises:
        ProtobufError: the message is broken.
    """
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire == _BYTES:
            size, position = _varint(message, position)
        elif wire in _SIZES:
            size = _SIZES[wire]
        else:
            raise ProtobufError(f"wire type {wire}")
        if size > end - position:
            raise ProtobufError(f"a field of {size} bytes, {end - position} are left")
        yield number, message[position : position + size]
        position += size


def integers(value: int | memoryview) -> list[int]:
    """Return the signed integers of a repeated field, packed or one of several. Raises ProtobufError."""
    if isinstance(value, int):
        return [_signed(value)]
    found, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        found.append(_signed(number))
    return found


def text(value: int | memoryview) -> str:
    """Return a field as text, different ones for different bytes. Raises ProtobufError."""
    return str(submessage(value), "latin-1")


def submessage(value: int | memoryview) -> memoryview:
    """Return a field as the bytes of a message. Raises ProtobufError."""
    if isinstance(value, int):
        raise ProtobufError("a number in the place of a message")
    return value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < _VARINT_BITS:
        if position >= len(message):
            raise ProtobufError("it ends in the middle of a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return value, position
        shift += 7
    raise ProtobufError("a number of more than ten bytes")


def _signed(value: int) -> int:
    value &= (1 << _INT64_BITS) - 1
    return value - (1 << _INT64_BITS) if value >> (_INT64_BITS - 1) else value
