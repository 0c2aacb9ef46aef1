"""Tell what a network's output means, and make logits of it.

Nodes and the aggregator work with logits: they can be merged, and a softmax makes confidences of them. So a
softmax or sigmoid at the end is taken off, also where only changes of shape or type follow it. What is taken
off is put back in numpy and compared with the network's own output, so that the confidence served is the
network's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.application import Scores
from splitplace.workshop.user_networks.reading import UserNetworkError

OutputKind = Literal["logits", "log-softmax", "softmax", "sigmoid"]
"""What the columns of an output are."""
OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)

_ENDINGS: dict[str, OutputKind] = {"Softmax": "softmax", "LogSoftmax": "log-softmax", "Sigmoid": "sigmoid"}
_SAME_VALUES = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"}
"""Operators that pass their first input on."""
_LEAST_SHARE = 1e-30
"""What a probability of 0 counts as: its logarithm is far below any other."""
_LEAST_DISTANCE = 1e-7
"""Distance from 0 and 1 that a sigmoid keeps, in float32."""
_SUM_TOLERANCE = 1e-3
_BINARY = 2

Run = Callable[[onnx.ModelProto], NDArray[np.float32]]
"""A function that runs a model on a few inputs and returns its output `[inputs, ...]`."""


@dataclass(frozen=True)
class Ending:
    """What the output of a network was, now that it gives logits."""

    kind: OutputKind
    """What the network's own output was."""
    recognised_by: str
    """The rule by which it was recognised, for people."""
    columns: int

    @property
    def scores(self) -> Scores:
        """How confidences are made of the logits."""
        return "sigmoid" if self.kind == "sigmoid" and self.columns > _BINARY else "softmax"


def end_with_logits(model: onnx.ModelProto, run: Run, said: OutputKind | None = None) -> Ending:
    """Change a model in place so that its one output is logits `float32[N, classes]`.

    A network with one sigmoid gets two columns, for *no* and *yes*.

    Args:
        model: One output of one number for each class, with further sides of 1 perhaps.
        run: Function that runs it on some inputs that look like real ones.
        said: What the user says that the output is; None = recognise it.

    Raises:
        UserNetworkError: The output is no row of numbers for each input, or cannot be told.
    """
    before = run(model)
    if not np.isfinite(before).all():
        raise UserNetworkError(
            "the model answers random inputs with NaN or infinity; check its weights, --mean and --std"
        )
    columns = _columns(before)
    kind, rule = (said, "--output-kind") if said else _recognised(model, before.reshape(len(before), columns))
    if kind in {"softmax", "sigmoid"}:
        if before.min() < -_SUM_TOLERANCE or before.max() > 1 + _SUM_TOLERANCE:
            raise UserNetworkError(
                f"the model's outputs are from {before.min():.3g} to {before.max():.3g}: no {kind}, "
                "whose values are between 0 and 1"
            )
        _take_off(model, kind, before, run)
    _as_rows(model, before, columns)
    return Ending(kind, rule, max(columns, _BINARY))


def _columns(output: NDArray[np.float32]) -> int:
    sides = [side for side in output.shape[1:] if side != 1]
    if output.ndim < 1 or len(sides) > 1:
        raise UserNetworkError(
            f"the output for {len(output)} inputs is {output.dtype}{list(output.shape)}: not one number for "
            "each class, so it is no classifier; say what it gives with --kind (tensors takes anything)"
        )
    return sides[0] if sides else 1


def _recognised(model: onnx.ModelProto, rows: NDArray[np.float32]) -> tuple[OutputKind, str]:
    last = _last_of_value(model.graph)
    columns = rows.shape[1]
    if last is not None and last.op_type in _ENDINGS:
        found = _ENDINGS[last.op_type]
        if found != "softmax" or columns > 1:
            return found, f"it ends with {last.op_type}"
    if columns == 1:
        raise UserNetworkError(
            "the model gives one number for each input: say what it is, with --output-kind logits (its "
            "sigmoid is the confidence of the second of two labels) or sigmoid (it is that confidence)"
        )
    within = (rows >= 0).all() and (rows <= 1 + _SUM_TOLERANCE).all()
    if within and np.allclose(rows.sum(axis=1), 1, atol=_SUM_TOLERANCE):
        return "softmax", "its outputs are between 0 and 1 and sum to 1"
    if within:
        raise UserNetworkError(
            "the model's outputs are between 0 and 1, but do not sum to 1: say what they are with "
            f"--output-kind {', '.join(OUTPUT_KINDS)}"
        )
    if (rows <= 0).all() and np.allclose(np.exp(rows).sum(axis=1), 1, atol=_SUM_TOLERANCE):
        return "log-softmax", "their exponentials sum to 1"
    return "logits", "nothing says that they are anything else"


def _last_of_value(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """Return the last node that changes values, not only shapes or types."""
    makers = {name: node for node in graph.node for name in node.output}
    name = graph.output[0].name
    while name in makers and makers[name].op_type in _SAME_VALUES:
        name = makers[name].input[0]
    return makers.get(name)


def _take_off(model: onnx.ModelProto, kind: OutputKind, before: NDArray[np.float32], run: Run) -> None:
    """Replace probabilities by logits: leave out what made them, or undo it where that is not found."""
    last = _last_of_value(model.graph)
    if last is not None and _ENDINGS.get(last.op_type) == kind:
        kept = onnx.NodeProto()
        kept.CopyFrom(last)
        last.op_type = "Identity"
        del last.attribute[:]
        again = _probabilities(run(model), kind)
        if again.shape == before.shape and np.allclose(again, before, rtol=1e-3, atol=1e-5):
            return
        last.CopyFrom(kept)
    _undo(model, kind)


def _probabilities(output: NDArray[np.float32], kind: OutputKind) -> NDArray[np.float64]:
    wide = output.astype(np.float64)
    if kind == "sigmoid":
        shares: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(wide, -700, 700)))
        return shares
    rows = wide.reshape(len(wide), -1)
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    normalised: NDArray[np.float64] = (powers / powers.sum(axis=1, keepdims=True)).reshape(wide.shape)
    return normalised


def _undo(model: onnx.ModelProto, kind: OutputKind) -> None:
    """Append the logarithm of a softmax, or the inverse of a sigmoid."""
    if kind == "softmax":
        _append(
            model, [("Cast", [], {"to": TensorProto.FLOAT}), ("Max", [_number("least", _LEAST_SHARE)], {})]
        )
        _append(model, [("Log", [], {})])
        return
    least, one = _number("least", _LEAST_DISTANCE), _number("one", 1.0)
    most = _number("most", 1 - _LEAST_DISTANCE)
    _append(model, [("Cast", [], {"to": TensorProto.FLOAT}), ("Max", [least], {}), ("Min", [most], {})])
    share = model.graph.output[0].name
    model.graph.initializer.append(one)
    names = [f"splitplace.end.{name}" for name in ("rest", "odds", "logit")]
    model.graph.node.extend(
        [
            helper.make_node("Sub", [one.name, share], [names[0]]),
            helper.make_node("Div", [share, names[0]], [names[1]]),
            helper.make_node("Log", [names[1]], [names[2]]),
        ]
    )
    model.graph.output[0].name = names[2]


def _as_rows(model: onnx.ModelProto, before: NDArray[np.float32], columns: int) -> None:
    """Append what makes rows of float32: for one number z, the two logits 0 and z."""
    if before.dtype != np.float32:
        _append(model, [("Cast", [], {"to": TensorProto.FLOAT})])
    if before.shape != (len(before), columns):
        target = numpy_helper.from_array(np.array([-1, columns]), "splitplace.end.rows")
        _append(model, [("Reshape", [target], {})])
    if columns == 1:
        yes = model.graph.output[0].name
        zero = _number("zero", 0.0)
        model.graph.initializer.append(zero)
        no, both = "splitplace.end.no", "splitplace.end.both"
        model.graph.node.extend(
            [
                helper.make_node("Mul", [yes, zero.name], [no]),
                helper.make_node("Concat", [no, yes], [both], axis=1),
            ]
        )
        model.graph.output[0].name = both
    last = model.graph.output[0].name
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, None))


def _append(
    model: onnx.ModelProto, steps: Sequence[tuple[str, list[onnx.TensorProto], dict[str, Any]]]
) -> None:
    """Append operators to the one output."""
    graph = model.graph
    for operator, weights, attributes in steps:
        made = f"splitplace.end.{len(graph.node)}"
        graph.initializer.extend(weights)
        source = graph.output[0].name
        names = [source, *(weight.name for weight in weights)]
        graph.node.append(helper.make_node(operator, names, [made], **attributes))
        graph.output[0].name = made
        graph.output[0].type.Clear()


def _number(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), f"splitplace.end.{name}")
