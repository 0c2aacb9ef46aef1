"""Handle large networks without copies of their weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import TensorProto, helper

from splitplace.messages.limits import MEBIBYTE

LARGE_WEIGHT_BYTES = 4096
"""Weights above this size are not shapes or axes, so shape inference does not need their values."""
LARGE_MODEL_BYTES = 64 * MEBIBYTE
"""Networks above this size are given to ONNX Runtime as files: of bytes it makes copies."""

_MODEL, _WEIGHTS = "model.onnx", "weights"
_PAGE = 4096


def without_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, frozenset[str]]:
    """Return a model whose large weights are inputs instead, and their names. The model is not changed."""
    bare, weights = _without_initializers(model), set()
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.ByteSize() > LARGE_WEIGHT_BYTES:
            bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
            weights.add(tensor.name)
        else:
            bare.graph.initializer.append(tensor)
    return bare, frozenset(weights)


@contextmanager
def as_file(model: onnx.ModelProto) -> Iterator[Path]:
    """Yield a file of the model for as long as the block lasts, whose weights lie in another file beside it.

    Whoever has opened it there may read it afterwards, too. The model is not changed.
    """
    bare = _without_initializers(model)
    with TemporaryDirectory(prefix="splitplace-") as folder:
        with (Path(folder) / _WEIGHTS).open("wb") as file:
            for tensor in model.graph.initializer:
                if not tensor.HasField("raw_data") or tensor.ByteSize() <= LARGE_WEIGHT_BYTES:
                    bare.graph.initializer.append(tensor)
                    continue
                file.write(bytes(-file.tell() % _PAGE))  # whole pages are read without a copy
                start = file.tell()
                file.write(tensor.raw_data)
                outside = bare.graph.initializer.add(
                    name=tensor.name,
                    data_type=tensor.data_type,
                    dims=tensor.dims,
                    data_location=TensorProto.EXTERNAL,
                )
                for key, value in (
                    ("location", _WEIGHTS),
                    ("offset", start),
                    ("length", file.tell() - start),
                ):
                    outside.external_data.add(key=key, value=str(value))
        place = Path(folder) / _MODEL
        place.write_bytes(bare.SerializeToString())
        yield place


def _without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(bare, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy(bare.graph, field.name, value)
    return bare


def _copy(target: onnx.ModelProto | onnx.GraphProto, name: str, value: object) -> None:
    if isinstance(value, int | str | bytes):
        setattr(target, name, value)
    else:
        getattr(target, name).MergeFrom(value)
