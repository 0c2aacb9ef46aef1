"""Adapt a user's ONNX file: what sensors send in, logits out, any batch size where the network allows it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.edge_node.graph_check import GraphRefusedError, check_bytes
from splitplace.messages.application import Scores
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.onnx.batch_size import with_plain_sizes
from splitplace.workshop.onnx.file import BATCH, finish
from splitplace.workshop.user_networks.ending import OutputKind, end_with_logits
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import (
    PLAIN_OPSET,
    UserNetworkError,
    in_readable_opset,
    opset_of,
)
from splitplace.workshop.user_networks.source import (
    Source,
    only_input,
    reading_cast,
    samples,
    sized,
    source_of,
)

_INPUT = "splitplace.input"
"""Name of the input that takes what sensors send."""
_SAME_ANSWER = 1e-3
"""Greatest accepted difference between the logits of an input alone and in a batch."""
_TRIED = 3
"""Inputs that a network is tried with."""

MAX_INNER_TENSOR_BYTES = 256 * MEBIBYTE
"""Limit of each tensor inside a network, for one input."""


@dataclass(frozen=True)
class Adopted:
    """A user's network as SplitPlace runs it."""

    model: onnx.ModelProto
    """From what sensors send to logits `[batch, classes]`."""
    input: TensorSpec
    kind: OutputKind = "logits"
    """What its own output was."""
    scores: Scores = "softmax"
    """How confidences are made of the logits."""
    one_by_one: bool = False
    """Whether it must be run on one input at a time."""
    notes: tuple[str, ...] = ()
    """What was recognised or chosen, for people."""


@dataclass(frozen=True)
class Wishes:
    """What a user says of an ONNX file."""

    input: str = ""
    """Sizes of its input, as `source.sized` takes them."""
    output: str = ""
    """Name of the output to serve, where there are several."""
    output_kind: OutputKind | None = None
    """What the output is; None = recognise it."""


def prepared(model: onnx.ModelProto, wishes: Wishes = Wishes()) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a model with one output, fixed sizes and readable operators, and notes for people.

    Raises:
        UserNetworkError: It has other inputs or outputs, or what the user says does not fit it.
    """
    opset = opset_of(model)
    check_bounds(model)
    only_input(model)
    chosen = _with_one_output(model, wishes.output)
    fixed, notes = sized(chosen, wishes.input)
    source_of(fixed)
    readable = in_readable_opset(fixed)
    if readable is not fixed:
        _check_conversion(fixed, readable)
        notes = (*notes, f"converted from opset {opset}; its answers are those of the file")
    return readable, notes


def adopt(model: onnx.ModelProto, preprocessing: Preprocessing | None, wishes: Wishes = Wishes()) -> Adopted:
    """Return the network from what sensors send to logits, with a free batch where it allows one.

    Args:
        model: One input of any type, and one output of a number for each class. It is not changed.
        preprocessing: Conversion from bytes to floats for pictures; None where the input is no picture of
            floats.
        wishes: What the user says of it.

    Raises:
        UserNetworkError: The model has another form, or nothing can run it.
    """
    changed, notes = prepared(model, wishes)
    if changed is model:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
    source = source_of(changed)
    if source.is_pictures and source.element != TensorProto.UINT8 and preprocessing is None:
        raise UserNetworkError(
            "the model reads floats: give the preprocessing from bytes (mean and deviation)"
        )
    given = _given(changed, source, preprocessing)
    _free_batch(changed.graph, source.batch)
    session_inputs = samples(given, _TRIED)
    alone = _Alone(session_inputs)
    ending = end_with_logits(changed, alone, wishes.output_kind)
    expected = alone(changed)
    notes = (*notes, f"its output is taken for {ending.kind}: {ending.recognised_by}")
    one_by_one = False
    problem = _problem_of_batches(changed, session_inputs, expected)
    if problem:
        one_by_one = True
        notes = (*notes, f"run on one input at a time: {problem}")
        changed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    name, batch = changed.graph.output[0].name, 1 if one_by_one else BATCH
    del changed.graph.output[:]
    changed.graph.output.append(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, ending.columns])
    )
    try:
        finished = finish(with_plain_sizes(changed))
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserNetworkError(f"the model's shapes cannot be inferred: {_first_line(error)}") from error
    return Adopted(finished, given, ending.kind, ending.scores, one_by_one, notes)


def _given(model: onnx.ModelProto, source: Source, preprocessing: Preprocessing | None) -> TensorSpec:
    """Put in front of a model what makes its input of what sensors send. Return what they send."""
    graph = model.graph
    spec = source.spec
    nodes, weights = _reading(source, preprocessing)
    kept = list(graph.node)
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend([*nodes, *kept])
    graph.initializer.extend(weights)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    value = helper.make_tensor_value_info(_INPUT, element, [BATCH, *spec.shape])
    graph.input.append(value)
    return spec


def check_bounds(model: onnx.ModelProto) -> None:
    """Refuse, before anything runs, what a node would refuse: work or memory without bound.

    Raises:
        UserNetworkError: The model holds such loops, or tensors that are too large.
    """
    try:
        known = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (ValueError, RuntimeError, onnx.shape_inference.InferenceError):
        known = model  # what does not fit together is said by others, better
    try:
        check_bytes(known.SerializeToString(), MAX_INNER_TENSOR_BYTES)
    except GraphRefusedError as error:
        raise UserNetworkError(f"no node would run this network: {error}") from error


def pictures_without_answer(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return which plain pictures (black, grey, white) a network of bytes answers with NaN or infinity."""
    (source,) = model.graph.input
    if source.type.tensor_type.elem_type != TensorProto.UINT8:
        return ()
    shape = tuple(dimension.dim_value for dimension in source.type.tensor_type.shape.dim[1:])
    session = _session(model)
    found = []
    for name, value in (("black", 0), ("grey", 128), ("white", 255)):
        picture = np.full((1, *shape), value, np.uint8)
        if not np.isfinite(np.asarray(session.run(None, {source.name: picture})[0])).all():
            found.append(name)
    return tuple(found)


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class _Alone:
    """Runs models on some inputs, one at a time: what a network answers does not depend on a batch then."""

    def __init__(self, inputs: NDArray[Any]) -> None:
        self._inputs = inputs

    def __call__(self, model: onnx.ModelProto) -> NDArray[np.float32]:
        """Return the outputs `[inputs, ...]`. Raises UserNetworkError if ONNX Runtime refuses."""
        try:
            session = _session(model)
            name = session.get_inputs()[0].name
            rows = [
                np.asarray(session.run(None, {name: self._inputs[index : index + 1]})[0])
                for index in range(len(self._inputs))
            ]
        except Exception as error:  # ONNX Runtime's C++ exceptions share no base class
            raise UserNetworkError(f"ONNX Runtime cannot run the model: {_first_line(error)}") from error
        if not rows[0].ndim or len(rows[0]) != 1:
            raise UserNetworkError(
                f"the output for one input is {rows[0].dtype}{list(rows[0].shape)}: its first dimension is "
                "not the batch"
            )
        return np.concatenate(rows)


def _problem_of_batches(model: onnx.ModelProto, inputs: NDArray[Any], expected: NDArray[np.float32]) -> str:
    """Return why a network cannot be run on several inputs at once; empty if it can.

    Equal is what differs by no more than a share of the largest logit: larger ones are rounded more.
    """
    try:
        session = _session(model)
        together = np.asarray(session.run(None, {session.get_inputs()[0].name: inputs})[0])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's C++ exceptions share no base class
        return f"it does not take several ({_first_line(error)[:80]})"
    if together.shape != expected.shape:
        return f"its output for {len(inputs)} is {list(together.shape)}"
    if np.abs(together - expected).max() > _SAME_ANSWER * max(1.0, float(np.abs(expected).max())):
        return "its answer to an input depends on the others of the batch"
    return ""


def _check_conversion(original: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    """Raise UserNetworkError unless a converted model gives what the original does."""
    source = source_of(original)
    shape = (source.batch or 1, *source.sides)
    spec = TensorSpec(dtype=source.spec.dtype, shape=shape) if not source.is_pictures else None
    values = samples(spec, 1)[0] if spec else np.random.default_rng(0).uniform(0, 1, shape)
    batch = values.astype(helper.tensor_dtype_to_np_dtype(source.element))
    try:
        first, second = (
            np.asarray(_session(model).run(None, {source.name: batch})[0]) for model in (original, converted)
        )
    except Exception as error:  # ONNX Runtime's C++ exceptions share no base class
        raise UserNetworkError(f"ONNX Runtime cannot run the model: {_first_line(error)}") from error
    if first.shape != second.shape or not np.allclose(first, second, rtol=1e-3, atol=1e-5):
        raise UserNetworkError(
            "converted to a newer opset, the model gives other answers: export it with opset "
            f"{PLAIN_OPSET} or newer"
        )


def _with_one_output(model: onnx.ModelProto, wanted: str) -> onnx.ModelProto:
    """Return the model with only the output that is to be served."""
    outputs = {value.name: value for value in model.graph.output}
    if wanted and wanted not in outputs:
        raise UserNetworkError(f"--output {wanted!r} is none of its outputs: {', '.join(outputs)[:300]}")
    if len(outputs) == 1:
        return model
    if not wanted:
        shapes = ", ".join(f"{name} {_shape(value)}" for name, value in outputs.items())
        raise UserNetworkError(
            f"the model has {len(outputs)} outputs ({shapes[:300]}); choose one with --output"
        )
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    changed.graph.output.append(outputs[wanted])
    return changed


def _shape(value: onnx.ValueInfoProto) -> str:
    return "x".join(str(side.dim_value or "?") for side in value.type.tensor_type.shape.dim) or "?"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _free_batch(graph: onnx.GraphProto, fixed: int) -> None:
    """Replace sizes that a fixed batch has left in `Reshape` targets, so that any batch works."""
    if not fixed:
        return
    reshapes = [node for node in graph.node if node.op_type == "Reshape"]
    targets = {node.input[1] for node in reshapes}
    for index, tensor in enumerate(graph.initializer):
        if tensor.name in targets:
            graph.initializer[index].CopyFrom(_freed(tensor, fixed))
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in targets and node.attribute[0].name == "value":
            node.attribute[0].t.CopyFrom(_freed(node.attribute[0].t, fixed))
    for node in reshapes:
        del node.attribute[:]  # the only attribute, `allowzero`, would give 0 another meaning


def _freed(tensor: onnx.TensorProto, batch: int) -> onnx.TensorProto:
    """Return a `Reshape` target whose first side, if it is the batch size, is copied from the input."""
    target = numpy_helper.to_array(tensor).copy()
    if target.ndim == 1 and len(target) > 1 and target[0] == batch:
        target[0] = 0
    return numpy_helper.from_array(target, tensor.name)


def _reading(
    source: Source, preprocessing: Preprocessing | None
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes and weights that make the model's input of what sensors send."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    weights: list[onnx.TensorProto] = []
    if source.is_pictures and preprocessing is not None:
        steps, weights = _of_pictures(source, preprocessing)
    elif not source.is_pictures and (element := reading_cast(source)) is not None:
        steps.append(("Cast", [], {"to": element}))
    if source.is_channels_last:
        steps.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
    if not steps:
        steps.append(("Identity", [], {}))
    nodes, current = [], _INPUT
    for index, (kind, more, attributes) in enumerate(steps):
        made = source.name if index == len(steps) - 1 else f"{_INPUT}.{index}"
        nodes.append(helper.make_node(kind, [current, *more], [made], **attributes))
        current = made
    return nodes, weights


def _of_pictures(
    source: Source, preprocessing: Preprocessing
) -> tuple[list[tuple[str, list[str], dict[str, Any]]], list[onnx.TensorProto]]:
    """Return operators, with weights, from bytes `[N, C, H, W]` in RGB to what a network reads."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    weights: list[onnx.TensorProto] = []

    def add(operator: str, name: str, values: NDArray[Any], **attributes: int) -> None:
        weights.append(numpy_helper.from_array(values, f"{_INPUT}.{name}"))
        steps.append((operator, [f"{_INPUT}.{name}"], attributes))

    if preprocessing.is_bgr:
        add("Gather", "order", np.array([2, 1, 0]), axis=1)
    reads_bytes = source.element == TensorProto.UINT8
    if reads_bytes and not preprocessing.is_inverted:
        return steps, weights
    steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if preprocessing.is_inverted:
        add("Mul", "negative", np.array(-1, np.float32))
        add("Add", "white", np.array(255, np.float32))
    if not reads_bytes:
        add("Sub", "mean", np.array(preprocessing.mean_bytes, np.float32).reshape(-1, 1, 1))
        add("Div", "deviation", np.array(preprocessing.deviation_bytes, np.float32).reshape(-1, 1, 1))
    if source.element != TensorProto.FLOAT:
        steps.append(("Cast", [], {"to": source.element}))
    return steps, weights
