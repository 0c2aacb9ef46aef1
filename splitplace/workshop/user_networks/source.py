"""The inputs of a user's network: what they are, and what sensors send for them."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from splitplace.messages.limits import MAX_BUNDLE_NAME_BYTES
from splitplace.messages.tensors import DType, TensorSpec
from splitplace.workshop.onnx.file import BATCH
from splitplace.workshop.user_networks.reading import UserNetworkError, with_sides
from splitplace.workshop.user_networks.state_names import states_by_name

USUAL_SIDE = 224
"""Height and width where a network of pictures leaves them open and nobody says them."""
_CHANNELS = {1, 3}
"""Numbers of channels of pictures that sensors can send as files."""
_AXES = 3
_PICTURE_TYPES = {TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT16}
SENT: dict[int, DType] = {
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
    TensorProto.BFLOAT16: "float32",
}
"""The type in which each element type of ONNX is sent."""
_NUMBERS = re.compile(r"\d+")
_LENGTH = re.compile("seq|len|time|tok|step|frame", re.IGNORECASE)
"""Names of sides that are lengths of one input."""
_MAX_DIGITS = 5
_EXAMPLE_SIDE = 16


@dataclass(frozen=True)
class Source:
    """An input of a network."""

    name: str
    element: int
    """Its element type, a number of `onnx.TensorProto.DataType`."""
    sides: tuple[int, ...]
    """Its sizes beside the batch, in the model's order."""
    batch: int
    """The batch size that the file fixes; 0 = free."""
    axis: int | None = 0
    """The axis of the batch; None where it has none."""

    @property
    def is_pictures(self) -> bool:
        """Whether it is pictures of one or three channels, with the channels first or last."""
        return (
            self.axis == 0
            and len(self.sides) == _AXES
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
        return self.array

    @property
    def array(self) -> TensorSpec:
        """What sensors send where it is no picture: an array of what the model reads."""
        return TensorSpec(dtype=SENT[self.element], shape=self.sides)


def inputs_of(model: onnx.ModelProto) -> tuple[onnx.ValueInfoProto, ...]:
    """Return the inputs that are no weights. Raises UserNetworkError if there are none."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(value for value in model.graph.input if value.name not in weights)
    if not inputs:
        raise UserNetworkError("the model has no inputs")
    other = next((value.name for value in inputs if not value.type.HasField("tensor_type")), None)
    if other is not None:
        raise UserNetworkError(f"the input {other!r} is no tensor, so it cannot be sent")
    return inputs


def sized(model: onnx.ModelProto, said: str = "") -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a model with all sizes of its inputs fixed but the batch, and notes for people.

    Args:
        model: The network. It is not changed.
        said: The sizes, as in `3x480x640` or `images=3x480x640`, several after commas: channels, height and
            width of pictures, else in the model's order; empty where the file says them.

    Raises:
        UserNetworkError: An input is named that it does not have, a size stays open, or the file says
            another one.
    """
    values = inputs_of(model)
    wanted = _said_by_input(said, [value.name for value in values])
    if any(not value.type.tensor_type.HasField("shape") for value in values):
        model = _with_ranks(model, wanted)
        values = inputs_of(model)
    axes = batch_axes(model)
    notes: tuple[str, ...] = ()
    still_open: list[tuple[onnx.ValueInfoProto, int | None]] = []
    for value, axis in zip(values, axes, strict=True):
        tensor = value.type.tensor_type
        sizes = wanted.get(value.name, "")
        if _is_whole_shape(sizes, tensor):
            axis = None  # noqa: PLW2901 - it has no batch, as is said
        sides = tuple(side.dim_value for at, side in enumerate(tensor.shape.dim) if at != axis)
        more: tuple[str, ...] = ()
        if sizes:
            fixed = _wanted(sizes, sides)
        else:
            fixed, more = _usual(sides, tensor.elem_type, noted_sides(model))
        if not all(fixed):
            still_open.append((value, axis))
            continue
        if any(side not in {0, size} for side, size in zip(sides, fixed, strict=True)):
            shown = "x".join(str(side or "?") for side in sides)
            raise UserNetworkError(
                f"--input is {sizes}, but the file says {shown} for {value.name!r}, beside its batch"
            )
        notes = (*notes, *more)
        if fixed != sides:
            model = with_sides(model, value.name, fixed, axis)
    if still_open:
        raise UserNetworkError(_question(still_open, is_only_input=len(values) == 1))
    return model, notes


def _with_ranks(model: onnx.ModelProto, wanted: Mapping[str, str]) -> onnx.ModelProto:
    """Return a model whose inputs of any number of axes have a batch and the sizes that are said."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for value in inputs_of(changed):
        if value.type.tensor_type.HasField("shape"):
            continue
        if not wanted.get(value.name):
            raise UserNetworkError(
                f"the file tells no shape of {value.name!r}: say its sizes beside the batch, like "
                f"--input {value.name}=3x224x224"
            )
        sides = wanted[value.name].count("x") + 1
        shape = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, [BATCH, *[None] * sides])
        value.type.CopyFrom(shape)
    return changed


def _question(still_open: Sequence[tuple[onnx.ValueInfoProto, int | None]], *, is_only_input: bool) -> str:
    """Ask for sizes that a file leaves open, of inputs with these batches."""
    shown, said = [], []
    for value, axis in still_open:
        sides = [side for at, side in enumerate(value.type.tensor_type.shape.dim) if at != axis]
        known = "x".join(str(side.dim_value or side.dim_param or "?") for side in sides)
        shown.append(f"{value.name!r} is {known}")
        name = "" if is_only_input else f"{value.name}="
        said.append("--input " + name + "x".join(str(side.dim_value or _EXAMPLE_SIDE) for side in sides))
    return (
        f"the file leaves sizes open ({', '.join(shown)[:300]}, after the batch): say the ones that you "
        f"send, like {' '.join(said)[:300]}"
    )


def batch_axes(model: onnx.ModelProto) -> tuple[int | None, ...]:
    """Return the axis of each input that is its batch; None for those that have none.

    The batch is what inputs and outputs call a batch, else what the first axis of an output is called, unless
    that is a length, else the first axis of the first input, unless its size is fixed and no output has it.
    Of each input it is the axis of that name; else the first, if that is open; else the one that has the size
    of the batch, if the file fixes that; else the only open one, or the one of size 1.
    """
    values = inputs_of(model)
    first = values[0].type.tensor_type.shape.dim
    made = [value.type.tensor_type.shape.dim for value in model.graph.output]
    names = {side.dim_param for value in values for side in value.type.tensor_type.shape.dim} - {""}
    called = [side.dim_param for sides in made for side in sides if "batch" in side.dim_param.lower()]
    given = [value.type.tensor_type.shape.dim for value in values]
    called += [
        sides[0].dim_param for sides in made if sides and not _is_length(sides[0].dim_param, given, made)
    ]
    name = next((name for name in called if name in names), "")
    if name:
        return tuple(_batch_axis(value, name, 0) for value in values)
    if not first or not _is_batch(first, made):
        return (None,) * len(values)
    return (0, *(_batch_axis(value, first[0].dim_param, first[0].dim_value) for value in values[1:]))


def _is_length(name: str, given: Sequence[Sequence[Any]], made: Sequence[Sequence[Any]]) -> bool:
    """Whether a side of an output, by its name, is the length of one input, rather than a batch.

    It is no first axis of an input, the first input has room for another batch there, and its name says so or
    stands twice in a tensor, as in `[tokens, tokens]`.
    """
    if (
        not given[0]
        or given[0][0].dim_value > 1
        or any(sides and sides[0].dim_param == name for sides in given)
    ):
        return False
    twice = any([each.dim_param for each in sides].count(name) > 1 for sides in (*given, *made))
    return twice or bool(_LENGTH.search(name))


def _is_batch(first: Sequence[Any], made: Sequence[Sequence[Any]]) -> bool:
    """Whether the first axis of the first input is a batch, rather than a part of one input."""
    size = first[0].dim_value
    if size in {0, 1}:
        return True
    is_picture = len(first) == _AXES + 1 and first[1].dim_value in _CHANNELS
    return is_picture or (len(first) > 1 and any(sides and sides[0].dim_value == size for sides in made))


def _batch_axis(value: onnx.ValueInfoProto, name: str, size: int) -> int | None:
    dimensions = value.type.tensor_type.shape.dim
    named = [at for at, side in enumerate(dimensions) if name and side.dim_param == name]
    free = [at for at, side in enumerate(dimensions) if not side.dim_value]
    alike = [at for at, side in enumerate(dimensions) if side.dim_value == (size or 1)]
    only = free if len(free) == 1 else []
    for found in (named, free if 0 in free else [], *((alike, only) if size else (only, alike))):
        if found:
            return found[0]
    return None


def sources_of(model: onnx.ModelProto, first: str = "", states: Sequence[str] = ()) -> tuple[Source, ...]:
    """Return the inputs of a model whose sizes are fixed: the first of pictures, then the others in order.

    Args:
        model: The network.
        first: Name of the input that is the first instead; empty = the first picture that is no state.
        states: What the user says of states, as INPUT=OUTPUT.

    Raises:
        UserNetworkError: It has none, or one of a type that cannot be sent.
    """
    values = inputs_of(model)
    found = [_source(value, axis) for value, axis in zip(values, batch_axes(model), strict=True)]
    names = [source.name for source in found]
    kept = states_by_name(names, [output.name for output in model.graph.output], states)
    others = [source for source in found if source.name not in kept] or found
    begin = next((source for source in others if source.is_pictures), others[0])
    begin = next((source for source in found if source.name == first), begin)
    return (begin, *(source for source in found if source is not begin))


def source_of(model: onnx.ModelProto, first: str = "", states: Sequence[str] = ()) -> Source:
    """Return the first input of a model whose sizes are fixed, as `sources_of` does."""
    return sources_of(model, first, states)[0]


def pictures_among(
    sources: Sequence[Source], said: Sequence[str], states: Collection[str]
) -> tuple[str, ...]:
    """Return which inputs are pictures that sensors send as files.

    Args:
        sources: The inputs, in the order of `sources_of`.
        said: Names that the user says; empty = the first, and those of its type and size that are no states.
        states: Names of the inputs that are states.

    Raises:
        UserNetworkError: An input that is said is none, or no picture.
    """
    known = {source.name: source for source in sources}
    for name in said:
        if name not in known:
            raise UserNetworkError(f"--picture {name}: it is none of its inputs: {', '.join(known)[:300]}")
        if not known[name].is_pictures:
            shown = "x".join(map(str, known[name].sides))
            raise UserNetworkError(f"--picture {name}: {shown} is no picture of one or three channels")
    if said:
        return tuple(said)
    first = sources[0]
    if not first.is_pictures:
        return ()
    alike = [each for each in sources[1:] if (each.element, each.sides) == (first.element, first.sides)]
    return (first.name, *(each.name for each in alike if each.is_pictures and each.name not in states))


def _source(value: onnx.ValueInfoProto, axis: int | None) -> Source:
    tensor = value.type.tensor_type
    if tensor.elem_type not in SENT:
        known = TensorProto.DataType.values()
        element = tensor.elem_type
        shown = TensorProto.DataType.Name(element) if element in known else f"number {element}"
        raise UserNetworkError(
            f"the input {value.name!r} is of type {shown}, which sensors cannot send; "
            "numbers and bytes can be sent"
        )
    sizes = [dimension.dim_value for dimension in tensor.shape.dim]
    batch = 1 if axis is None else sizes.pop(axis)
    return Source(value.name, tensor.elem_type, tuple(sizes), batch, axis)


def short_name(name: str, otherwise: str) -> str:
    """Return a name that frames can carry: the network's own, if it is not too long."""
    return name if 0 < len(name.encode()) <= MAX_BUNDLE_NAME_BYTES else otherwise


def _said_by_input(said: str, names: Sequence[str]) -> dict[str, str]:
    """Return the sizes that are said, by input. Sizes without a name are those of the first."""
    found: dict[str, str] = {}
    for part in filter(None, said.split(",")):
        name, _, sizes = part.rpartition("=")
        if name and name not in names:
            known = ", ".join(map(repr, names))
            raise UserNetworkError(f"--input names {name!r}, but the network's input is {known[:300]}")
        found[name or names[0]] = sizes
    return found


def _is_whole_shape(sizes: str, tensor: onnx.TypeProto.Tensor) -> bool:
    """Whether the sizes that are said are those of all axes, so that none is left for a batch."""
    return bool(sizes) and len(sizes.split("x")) == len(tensor.shape.dim) != _AXES + 1


def reading_cast(source: Source) -> int | None:
    """Return the type that the first stage casts what is sent to; None where it is sent as it is read."""
    sent = helper.np_dtype_to_tensor_dtype(np.dtype(SENT[source.element]))
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


def noted_sides(model: onnx.ModelProto) -> tuple[int, int] | None:
    """Return the height and width that Ultralytics notes in a file; None for other exporters."""
    text = next((entry.value for entry in model.metadata_props if entry.key == "imgsz"), "")
    numbers = _NUMBERS.findall(text)
    if any(len(number) > _MAX_DIGITS for number in numbers):
        return None
    found = tuple(map(int, numbers))
    return (found[0], found[1]) if len(found) == 2 and all(found) else None  # noqa: PLR2004 - both


def _usual(
    sides: Sequence[int], element: int, noted: tuple[int, int] | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Fill in open heights and widths of pictures, and say so. Sizes of others stay open."""
    if (
        all(sides)
        or len(sides) != _AXES
        or element not in _PICTURE_TYPES
        or not _CHANNELS.intersection((sides[0], sides[-1]))
    ):
        return tuple(sides), ()
    height, width = noted or (USUAL_SIDE, USUAL_SIDE)
    usual = (height, width, 0) if sides[0] not in _CHANNELS else (0, height, width)
    filled = tuple(side or other for side, other in zip(sides, usual, strict=True))
    shown = "x".join(map(str, filled))
    why = ", as its notes say" if noted else ""
    return filled, (
        f"the file leaves the size of its pictures open: {shown} is taken{why} (--input says another)",
    )
