"""Bring a network's output into the form that answers of a kind are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from pydantic import ValidationError

from splitplace.messages import answer_kinds as kinds
from splitplace.messages.pieces import NamedTensor
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.onnx.branches import rename
from splitplace.workshop.onnx.file import BATCH
from splitplace.workshop.user_networks.detectors import Boxes, DetectorWishes, Head, append_detector
from splitplace.workshop.user_networks.operators import Operators
from splitplace.workshop.user_networks.outputs import append_to_output
from splitplace.workshop.user_networks.reading import UserNetworkError
from splitplace.workshop.user_networks.source import SENT, short_name

OUTPUT = "splitplace.output"
_BLANK = "<blank>"
_MAP_RANK = 4
_STEPS_RANK = 3
_BINARY = 2
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class HeadWishes:
    """What the user says of the answers."""

    kind: kinds.Kind
    labels: tuple[str, ...] = ()
    head: Head | None = None
    boxes: Boxes | None = None
    overlap: float = 0.45
    threshold: float | None = None
    blank: int = 0


@dataclass(frozen=True)
class MadeHead:
    """A network's end, in the form of its kind."""

    answer: kinds.AnswerKind
    outputs: tuple[NamedTensor, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...]


def append_head(
    model: onnx.ModelProto, arrays: Mapping[str, NDArray[Any]], given: TensorSpec, wishes: HeadWishes
) -> MadeHead:
    """Append operators to a model, so that its output is what answers of the kind are made of.

    That is one output, but for `tensors`, which are all outputs under their own names.

    Args:
        model: Changed in place.
        arrays: Its outputs for a few inputs, by name, batch first.
        given: What sensors send.
        wishes: What the user says.

    Raises:
        UserNetworkError: Its outputs are no answers of this kind, or it cannot be told how.
    """
    if wishes.kind == "tensors":
        return _as_they_are(model, arrays, wishes.labels)
    ops = Operators(model.graph)
    notes: tuple[str, ...] = ()
    labels = wishes.labels
    made: kinds.AnswerKind
    if wishes.kind == "detection":
        said = DetectorWishes(len(labels), wishes.head, wishes.boxes, wishes.overlap)
        if not labels or len(given.shape) != _STEPS_RANK:
            raise UserNetworkError("a detector takes pictures, and its classes have labels: say --labels")
        size = given.shape[2], given.shape[1]
        name, kept, notes = append_detector(model, arrays, size, said)
        spec = TensorSpec(dtype="float32", shape=(kept, kinds.OBJECT_NUMBERS))
        made = kinds.Detection() if wishes.threshold is None else kinds.Detection(threshold=wishes.threshold)
    else:
        source, array = _only(arrays, wishes.kind)
        if wishes.kind == "segmentation":
            name, spec, notes = _map(ops, source, array, len(labels))
            made = kinds.Segmentation()
        elif wishes.kind == "embedding":
            size_of_one = int(np.prod(array.shape[1:]))
            name = ops.shaped(ops.floats(source), size_of_one)
            spec, made = TensorSpec(dtype="float32", shape=(size_of_one,)), kinds.Embedding()
        else:
            name, labels, notes = _steps(ops, source, array, wishes)
            spec = TensorSpec(dtype="float32", shape=(array.shape[1], kinds.SYMBOL_NUMBERS))
            made = kinds.Sequence(blank=wishes.blank)
    name = ops.add("Identity", name)
    problem = kinds.form_problem(made, {OUTPUT: spec}, len(labels))
    if problem or not kinds.most_inputs(made, {OUTPUT: spec}):
        raise UserNetworkError(
            problem or f"an answer of {list(spec.shape)} {spec.dtype} has no room in a message"
        )
    element = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(name, element, [BATCH, *spec.shape]))
    return MadeHead(made, (NamedTensor(name=name, spec=spec),), labels, notes)


def _only(arrays: Mapping[str, NDArray[Any]], kind: str) -> tuple[str, NDArray[Any]]:
    if len(arrays) != 1:
        raise UserNetworkError(f"{kind} is made of one output: choose with --output {', '.join(arrays)}")
    ((name, array),) = arrays.items()
    return name, array


def _as_they_are(
    model: onnx.ModelProto, arrays: Mapping[str, NDArray[Any]], labels: tuple[str, ...]
) -> MadeHead:
    """Serve all outputs under their own names, in types that can be sent."""
    found: list[NamedTensor] = []
    values = []
    for number, (name, array) in enumerate(arrays.items(), 1):
        dtype = SENT.get(helper.np_dtype_to_tensor_dtype(array.dtype))
        if dtype is None:
            raise UserNetworkError(f"the output {name!r} is of type {array.dtype}, which cannot be sent")
        try:
            spec = TensorSpec.model_validate({"dtype": dtype, "shape": array.shape[1:]})
        except ValidationError as error:
            shown = "x".join(map(str, array.shape[1:]))
            raise UserNetworkError(f"the output {name!r} of {shown} cannot be sent") from error
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        if dtype != array.dtype.name:
            append_to_output(model, name, "Cast", to=element)
        else:
            append_to_output(model, name, "Identity")
        shown = short_name(name, f"output-{number}")
        if shown != name:
            for node in model.graph.node:
                rename(node, {name: shown})
        found.append(NamedTensor(name=shown, spec=spec))
        values.append(helper.make_tensor_value_info(shown, element, [BATCH, *spec.shape]))
    specs = {tensor.name: tensor.spec for tensor in found}
    if not kinds.most_inputs(kinds.Tensors(), specs):
        size = sum(spec.bytes_per_image for spec in specs.values())
        raise UserNetworkError(
            f"its outputs take {size} bytes, which have no room in a message: "
            + (
                "choose some with --output"
                if len(specs) > 1
                else "say what it gives with another --kind, or smaller --input"
            )
        )
    del model.graph.output[:]
    model.graph.output.extend(values)
    return MadeHead(kinds.Tensors(), tuple(found), labels, ())


def _map(
    ops: Operators, name: str, array: NDArray[Any], labels: int
) -> tuple[str, TensorSpec, tuple[str, ...]]:
    """Return a map of classes `uint8[N, height, width]`."""
    sides = array.shape[1:]
    if array.dtype.kind in "iu" and len(sides) == _MAP_RANK - 2:
        return (
            _bytes(ops, name),
            TensorSpec(dtype="uint8", shape=sides),
            ("its output is the map of classes",),
        )
    if (
        labels == _BINARY
        and int(np.prod(sides)) == int(np.prod([side for side in sides if side != 1]))
        and (len([side for side in sides if side != 1]) == _BINARY and len(sides) > _BINARY)
    ):
        height, width = (side for side in sides if side != 1)
        is_share = array.min() >= -_TOLERANCE and array.max() <= 1 + _TOLERANCE
        limit = 0.5 if is_share else 0.0
        found = ops.add("Greater", ops.shaped(ops.floats(name), height, width), ops.constant(limit))
        return (
            _bytes(ops, found),
            TensorSpec(dtype="uint8", shape=(height, width)),
            (f"the second label is where its one output is above {limit}",),
        )
    axes = [axis for axis in (1, 3) if array.ndim == _MAP_RANK and array.shape[axis] == labels]
    if len(axes) != 1:
        raise UserNetworkError(
            f"an output {list(sides)} is no map of {labels} classes: [classes, height, width] is"
        )
    height, width = (side for axis, side in enumerate(sides, 1) if axis != axes[0])
    best = ops.add("ArgMax", ops.floats(name), axis=axes[0], keepdims=0)
    return (
        _bytes(ops, best),
        TensorSpec(dtype="uint8", shape=(height, width)),
        ("each pixel has its best class",),
    )


def _bytes(ops: Operators, name: str) -> str:
    return ops.add("Cast", name, to=TensorProto.UINT8)


def _steps(
    ops: Operators, name: str, array: NDArray[Any], wishes: HeadWishes
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the best symbol and its probability for each step, `float32[N, steps, 2]`, and the symbols."""
    labels = wishes.labels
    if array.ndim != _STEPS_RANK:
        raise UserNetworkError(f"an output {list(array.shape[1:])} is no sequence: [steps, symbols] is")
    symbols = array.shape[2]
    if symbols == len(labels) + 1:
        labels = (*labels[: wishes.blank], _BLANK, *labels[wishes.blank :])
    if symbols != len(labels):
        raise UserNetworkError(
            f"it chooses among {symbols} symbols, but there are {len(labels)} labels: one a line, in its "
            "order; a line with a space is that symbol, and the blank (--blank) may be left out"
        )
    wide = array.astype(np.float64)
    is_share = wide.min() >= -_TOLERANCE and np.allclose(wide.sum(axis=2), 1, atol=_TOLERANCE)
    shares = ops.floats(name) if is_share else ops.add("Softmax", ops.floats(name), axis=2)
    best, places = ops.best(shares, 1, 2)
    note = f"symbol {wishes.blank} is the blank; " + ("probabilities as they are" if is_share else "softmax")
    return ops.add("Concat", ops.floats(places), best, axis=2), labels, (note,)
