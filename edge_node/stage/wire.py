"""Write the protobuf wire format: varints and length-delimited fields. Pure.

Enough for the heads of ONNX models. `edge_node.protobuf` reads.
"""

_VARINT, _BYTES = 0, 2
_INT64_BITS = 64


def number_field(number: int, value: int) -> bytes:
    """Return a varint field. Negative values are written as protobuf's `int64`."""
    return _encoded(number << 3 | _VARINT) + _encoded(value % (1 << _INT64_BITS))


def bytes_field(number: int, payload: bytes) -> bytes:
    """Return a length-delimited field: bytes or a message."""
    return _encoded(number << 3 | _BYTES) + _encoded(len(payload)) + payload


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
