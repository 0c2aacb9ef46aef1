"""The one input of a user's network: what it is, and what sensors send for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from splitplace.messages.tensors import DType, TensorSpec
from splitplace.workshop.user_networks.reading import UserNetworkError, with_sides

USUAL_SIDE = 224
"""Height and width where a network of pictures leaves them open and nobody says them."""
_CHANNELS = {1, 3}
"""Numbers of channels of pictures that sensors can send as files."""
_AXES = 3
_PICTURE_TYPES = {TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT16}
_SENT: dict[int, DType] = {
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.FLOAT16: "float16",
    TensorProto.FLOAT: "float32",
    # Types that are not sent: the next larger one is cast by the first stage.
    TensorProto.BOOL: "uint8",
    TensorProto.INT16: "int32",
    TensorProto.UINT16: "int32",
    TensorProto.UINT32: "int64",
    TensorProto.UINT64: "int64",
    TensorProto.DOUBLE: "float32",
}
_COARSE = 8
"""Patches of a sample picture along each side."""


@dataclass(frozen=True)
class Source:
    """The input of a network."""

    name: str
    element: int
    """Its element type, a number of `onnx.TensorProto.DataType`."""
    sides: tuple[int, ...]
    """Its sizes after the batch, in the model's order."""
    batch: int
    """The batch size that the file fixes; 0 = free."""

    @property
    def is_pictures(self) -> bool:
        """Whether it is pictures of one or three channels, with the channels first or last."""
        return (
            len(self.sides) == _AXES
            and self.element in _PICTURE_TYPES
            and bool(_CHANNELS.intersection((self.sides[0], self.sides[-1])))
        )

    @property
    def is_channels_last(self) -> bool:
        """Whether its pictures have their channels last."""
        return self.is_pictures and self.sides[0] not in _CHANNELS

    @property
    def spec(self) -> TensorSpec:
        """What sensors send: bytes `[channels, height, width]` of pictures, else what the model reads."""
        if self.is_pictures:
            shape = (self.sides[2], *self.sides[:2]) if self.is_channels_last else self.sides
            return TensorSpec(dtype="uint8", shape=shape)
        return TensorSpec(dtype=_SENT[self.element], shape=self.sides)


def sized(model: onnx.ModelProto, said: str = "") -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a model with all sizes of its input fixed but the batch, and notes for people.

    Args:
        model: One input. It is not changed.
        said: The sizes, as in `3x480x640` or `images=3x480x640`: channels, height and width of pictures,
            else in the model's order; empty where the file says them.

    Raises:
        UserNetworkError: It has other inputs, a size stays open, or the file says another one.
    """
    value = only_input(model)
    name, _, sizes = said.rpartition("=")
    if name and name != value.name:
        raise UserNetworkError(f"--input names {name!r}, but the network's input is {value.name!r}")
    tensor = value.type.tensor_type
    sides = tuple(dimension.dim_value for dimension in tensor.shape.dim[1:])
    notes: tuple[str, ...] = ()
    if sizes:
        wanted = _wanted(sizes, sides)
    else:
        wanted, notes = _usual(value.name, sides, tensor.elem_type)
    clash = any(side not in {0, size} for side, size in zip(sides, wanted, strict=True))
    if clash:
        raise UserNetworkError(
            f"--input is {said}, but the file says {'x'.join(str(s or '?') for s in sides)}"
        )
    return (model if wanted == sides else with_sides(model, value.name, wanted)), notes


def source_of(model: onnx.ModelProto) -> Source:
    """Return the input of a model whose sizes are fixed.

    Raises:
        UserNetworkError: It has other inputs, or of a type that cannot be sent.
    """
    value = only_input(model)
    tensor = value.type.tensor_type
    if tensor.elem_type not in _SENT:
        raise UserNetworkError(
            f"the input {value.name!r} is of type {TensorProto.DataType.Name(tensor.elem_type)}, "
            "which sensors cannot send; numbers and bytes can be sent"
        )
    dimensions = tensor.shape.dim
    if not dimensions:
        raise UserNetworkError(f"the input {value.name!r} has no batch dimension")
    sides = tuple(dimension.dim_value for dimension in dimensions[1:])
    return Source(value.name, tensor.elem_type, sides, dimensions[0].dim_value)


def only_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """Return the one input. Raises UserNetworkError if there are several or none."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise UserNetworkError(
            f"the model has {len(inputs)} inputs ({', '.join(value.name for value in inputs)[:200]}); "
            "a task has one"
        )
    return inputs[0]


def samples(spec: TensorSpec, count: int, seed: int = 0) -> NDArray[Any]:
    """Return inputs that look like real ones: smooth patches with some noise; small whole numbers; noise."""
    random = np.random.default_rng(seed)
    shape = (count, *spec.shape)
    if spec.dtype == "uint8" and len(spec.shape) == _AXES:
        channels, height, width = spec.shape
        patches = random.uniform(0, 255, (count, channels, _COARSE, _COARSE))
        rows = np.arange(height) * _COARSE // height
        columns = np.arange(width) * _COARSE // width
        smooth = patches[:, :, rows][:, :, :, columns] + random.normal(0, 8, shape)
        return np.clip(smooth, 0, 255).astype(np.uint8)
    if spec.dtype in {"uint8", "int8"}:
        return random.integers(0, 2 if spec.dtype == "int8" else 256, shape).astype(spec.dtype)
    if spec.dtype.startswith("int"):
        return random.integers(0, 2, shape).astype(spec.dtype)
    return random.standard_normal(shape).astype(spec.dtype)


def reading_cast(source: Source) -> int | None:
    """Return the type that the first stage casts what is sent to; None where it is sent as it is read."""
    sent = helper.np_dtype_to_tensor_dtype(np.dtype(_SENT[source.element]))
    return source.element if sent != source.element else None


def _wanted(sizes: str, sides: Sequence[int]) -> tuple[int, ...]:
    try:
        found = tuple(int(size) for size in sizes.split("x"))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or len(found) != len(sides):
        raise UserNetworkError(
            f"--input is {sizes!r}, expected {len(sides)} sizes above 0, like 3x32x32 for pictures"
        )
    if len(sides) == _AXES and sides[-1] in _CHANNELS and sides[0] not in _CHANNELS:
        return (*found[1:], found[0])  # channels come first for people
    return found


def _usual(name: str, sides: Sequence[int], element: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Fill in open heights and widths of pictures."""
    if min(sides, default=1) > 0:
        return tuple(sides), ()
    if (
        len(sides) != _AXES
        or element not in _PICTURE_TYPES
        or not _CHANNELS.intersection((sides[0], sides[-1]))
    ):
        shape = "x".join(str(side or "?") for side in sides)
        raise UserNetworkError(
            f"the input {name!r} is {shape} after the batch: say the open sizes with --input"
        )
    filled = tuple(side or USUAL_SIDE for side in sides)
    shown = "x".join(map(str, filled))
    return filled, (
        f"the file leaves the size of its pictures open: {shown} is taken (--input says another)",
    )
