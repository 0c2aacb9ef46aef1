"""Read an ONNX file without its large weights: they go to another file, and are never held."""

import mmap
from pathlib import Path

import onnx
from onnx import TensorProto

from splitplace.edge_node.protobuf import fields
from splitplace.edge_node.stage.wire import bytes_field, number_field
from splitplace.workshop.onnx.aside import PAGE, outside
from splitplace.workshop.onnx.light import LARGE_WEIGHT_BYTES, is_outside

_GRAPH, _INITIALIZER, _RAW = 7, 5, 9
"""Numbers of fields: of a model, of its graph, and of a weight."""


def skimmed(path: Path, place: Path) -> tuple[onnx.ModelProto, dict[int, onnx.TensorProto]]:
    """Return the model of a file with its large weights empty, and by their numbers what they are instead.

    Args:
        path: The file.
        place: The file for the weights, which is not there yet.

    Raises:
        ProtobufError: It is no protobuf message.
        google.protobuf.message.DecodeError: It is no model.
        OSError: A file cannot be read or written.
    """
    parts: list[bytes] = []
    large: dict[int, onnx.TensorProto] = {}
    count = 0
    with path.open("rb") as file, place.open("xb") as written:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        for number, value in fields(memoryview(content)):
            if number != _GRAPH or isinstance(value, int):
                parts.append(_field(number, value))
                continue
            for inner, part in fields(value):
                kept = part
                if inner == _INITIALIZER and not isinstance(part, int):
                    rest, raw = _divided(part)
                    tensor = TensorProto.FromString(rest)
                    if len(raw) > LARGE_WEIGHT_BYTES and not is_outside(tensor):
                        written.write(bytes(-written.tell() % PAGE))
                        large[count] = outside(tensor, place, written.tell(), len(raw))
                        written.write(raw)
                        kept = memoryview(rest)
                    count += 1
                # Parts of a graph that come one by one are put together by protobuf.
                parts.append(bytes_field(_GRAPH, _field(inner, kept)))
    return onnx.ModelProto.FromString(b"".join(parts)), large


def _divided(tensor: memoryview) -> tuple[bytes, memoryview]:
    """Return a weight without its raw bytes, and these; empty where it has none."""
    rest: list[bytes] = []
    raw = memoryview(b"")
    for number, value in fields(tensor):
        if number == _RAW and not isinstance(value, int):
            raw = value
        else:
            rest.append(_field(number, value))
    return b"".join(rest), raw


def _field(number: int, value: int | memoryview) -> bytes:
    return number_field(number, value) if isinstance(value, int) else bytes_field(number, bytes(value))
