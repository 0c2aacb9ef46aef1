"""Recognise how a file wants its pictures, and what its exporter says of it. Nothing is guessed silently."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from splitplace.messages.pictures import PictureInput
from splitplace.workshop.onnx.aside import values_of
from splitplace.workshop.user_networks.source import Source

_PASSED_OVER = {"Transpose", "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_COMPUTING = {"Sub", "Add", "Mul", "Div", "BatchNormalization"}
_IN_BYTES = 1.5
"""Subtracted means above it are of bytes, not of values from 0 to 1."""
_SMALL_FACTOR = 1 / 64
"""Factors below it, and divisors above its inverse, make small numbers of bytes."""
_MOST_LABELS = 10_000
_MOST_STEPS = 6


@dataclass(frozen=True)
class Recognised:
    """What a file says of itself."""

    pictures: PictureInput
    """Preprocessing, and the rule by which it was recognised."""
    is_default: bool = False
    """Whether nothing was recognised and the usual values are taken."""


def notes_of(model: onnx.ModelProto) -> tuple[str, tuple[str, ...]]:
    """Return what Ultralytics calls the task of a network, and its labels; both empty for other exporters."""
    notes = {entry.key: entry.value for entry in model.metadata_props}
    return (notes.get("task", ""), _labels(notes.get("names", ""))) if _is_ultralytics(notes) else ("", ())


def recognised(model: onnx.ModelProto, source: Source) -> Recognised:
    """Return the preprocessing of a network of pictures, by the first rule that fits.

    The rules: notes that Ultralytics leaves in the file; an input of bytes; a beginning that scales or
    shifts bytes by itself. Otherwise values from 0 to 1 in RGB are taken, and the rule says so.

    Args:
        model: The file, with the notes of its exporter.
        source: Its one input, which is pictures.
    """
    notes = {entry.key: entry.value for entry in model.metadata_props}
    layout = {"layout": "channels-last" if source.is_channels_last else "channels-first"}
    if source.spec.shape[0] == 1:
        layout["colours"] = "grey"
    if _is_ultralytics(notes):
        task = notes.get("task", "")
        fit = "crop" if task == "classify" else "pad"
        rule = f"its notes are those of an export by Ultralytics ({task or 'no task'})"
        found = PictureInput.model_validate({"fit": fit, "rule": rule, **layout})
        return Recognised(found)
    if source.element == TensorProto.UINT8:
        found = PictureInput.model_validate({"white": 255.0, "rule": "its input is bytes", **layout})
        return Recognised(found)
    if rule := _scales_bytes(model.graph, source.name):
        return Recognised(PictureInput.model_validate({"white": 255.0, "rule": rule, **layout}))
    rule = "not recognised: values from 0 to 1 are taken, without mean and deviation"
    return Recognised(PictureInput.model_validate({"rule": rule, **layout}), is_default=True)


def _is_ultralytics(notes: Mapping[str, str]) -> bool:
    return notes.get("author") == "Ultralytics" or notes.keys() >= {"stride", "names", "imgsz"}


def _labels(names: str) -> tuple[str, ...]:
    """Read names as Ultralytics writes them: a Python dictionary from numbers to names."""
    try:
        found = ast.literal_eval(names)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    if not isinstance(found, dict) or not 0 < len(found) <= _MOST_LABELS:
        return ()
    return tuple(str(found[key]) for key in sorted(found)) if set(found) == set(range(len(found))) else ()


def _scales_bytes(graph: onnx.GraphProto, name: str) -> str:
    """Return how a graph makes small numbers of bytes at its beginning; empty if it does not."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for _ in range(_MOST_STEPS):
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1:
            return ""
        (node,) = readers
        if node.op_type in _COMPUTING:
            return _of_bytes(node, name, constants)
        if node.op_type not in _PASSED_OVER:
            return ""
        name = node.output[0]
    return ""


def _of_bytes(node: onnx.NodeProto, name: str, constants: Mapping[str, onnx.TensorProto]) -> str:
    """Return what an operator does to its input, if that makes sense for bytes only."""
    if node.op_type == "BatchNormalization":
        mean = constants.get(node.input[3])
        is_of_bytes = mean is not None and float(np.abs(values_of(mean)).max()) > _IN_BYTES
        return "it begins by normalising bytes (BatchNormalization)" if is_of_bytes else ""
    others = [constants.get(other) for other in node.input if other != name]
    if len(others) != 1 or others[0] is None:
        return ""
    value = float(np.abs(values_of(others[0])).max(initial=0.0))
    match node.op_type:
        case "Sub" | "Add" if value > _IN_BYTES:
            return f"it begins by taking a mean of bytes off ({node.op_type} of {value:.4g})"
        case "Mul" if 0 < value < _SMALL_FACTOR:
            return f"it begins by scaling bytes (Mul by {value:.4g})"
        case "Div" if value > 1 / _SMALL_FACTOR:
            return f"it begins by scaling bytes (Div by {value:.4g})"
    return ""
