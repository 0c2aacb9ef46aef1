"""Choose the outputs of a user's network, put their batch first, and find what it hands to its next call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.pieces import NamedTensor
from splitplace.messages.states import StateTensor
from splitplace.workshop.onnx.branches import reads, rename
from splitplace.workshop.user_networks.reading import UserNetworkError, opset_of
from splitplace.workshop.user_networks.state_names import is_next, words
from splitplace.workshop.user_networks.trial import Alone, run_of

_WIDER = {
    **dict.fromkeys(
        (
            TensorProto.BFLOAT16,
            TensorProto.FLOAT8E4M3FN,
            TensorProto.FLOAT8E4M3FNUZ,
            TensorProto.FLOAT8E5M2,
            TensorProto.FLOAT8E5M2FNUZ,
        ),
        TensorProto.FLOAT,
    ),
    TensorProto.INT4: TensorProto.INT8,
    TensorProto.UINT4: TensorProto.UINT8,
}
"""Types that numpy does not have, and what they are cast to."""
_AXES_AS_INPUT = 13
"""Operator set from which on `Unsqueeze` takes its axes as an input."""


def with_outputs(model: onnx.ModelProto, wanted: str, *, all_of_them: bool) -> onnx.ModelProto:
    """Return the model with only the outputs that are to be served.

    Args:
        model: It is not changed.
        wanted: Their names, with commas between them; empty = the only one, or all.
        all_of_them: Whether all are served where none is named.

    Raises:
        UserNetworkError: It has no such output, or several and none is named.
    """
    outputs = {value.name: value for value in model.graph.output}
    names = [wanted] if wanted in outputs else [name.strip() for name in wanted.split(",") if name.strip()]
    if not outputs:
        raise UserNetworkError("the model has no outputs")
    for name in names:
        if name not in outputs:
            raise UserNetworkError(f"--output {name!r} is none of its outputs: {', '.join(outputs)[:300]}")
    if not names and len(outputs) > 1 and not all_of_them:
        shapes = ", ".join(f"{name} {_shape(value)}" for name, value in outputs.items())
        raise UserNetworkError(
            f"the model has {len(outputs)} outputs ({shapes[:300]}); choose one with --output, or serve all "
            "with --kind tensors"
        )
    chosen = list(dict.fromkeys(names)) or list(outputs)
    if len(chosen) == len(outputs) == len(model.graph.output):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    changed.graph.output.extend(outputs[name] for name in chosen)
    return changed


def without_unread_inputs(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the model without inputs that no output depends on, and notes for people."""
    needed = {value.name for value in model.graph.output}
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(reads(node))
    unread = [value.name for value in model.graph.input if value.name not in needed]
    if not unread:
        return model, ()
    if len(unread) == len(model.graph.input):
        raise UserNetworkError("its outputs depend on no input")
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    kept = [value for value in model.graph.input if value.name in needed]
    del changed.graph.input[:]
    changed.graph.input.extend(kept)
    return changed, (f"its outputs do not depend on {', '.join(unread)}: left out",)


def outputs_batch_first(model: onnx.ModelProto, alone: Alone) -> str:
    """Change a model in place so that its outputs are batches.

    An output without a batch gets one, of one.

    Args:
        model: Its inputs are batches.
        alone: Some inputs.

    Returns:
        Why it takes no several inputs at once; empty where it may.

    Raises:
        UserNetworkError: ONNX Runtime cannot run it.
    """
    for output in model.graph.output:
        wider = _WIDER.get(output.type.tensor_type.elem_type)
        if wider is not None:
            append_to_output(model, output.name, "Cast", to=wider)
            output.type.tensor_type.elem_type = wider
    one = run_of(model, alone.first())
    try:
        several = run_of(model, alone.inputs)
    except UserNetworkError:
        several = {}
    problem = ""
    for name, array in one.items():
        axis = _output_axis(array.shape, several[name].shape if name in several else (), alone.count)
        if axis is None:
            problem = f"its output {name!r} for one input is {list(array.shape)}, without a batch"
            _add_batch(model, name)
        elif axis:
            order = [axis, *(at for at in range(array.ndim) if at != axis)]
            append_to_output(model, name, "Transpose", perm=order)
    return problem


def _output_axis(one: Sequence[int], several: Sequence[int], count: int) -> int | None:
    """Return the axis of an output that is the batch, by its sizes for one input and for several."""
    ones = [at for at, side in enumerate(one) if side == 1]
    if len(one) == len(several):
        grown = [at for at in ones if several[at] == count]
        if grown:
            return grown[0]
    return 0 if 0 in ones else ones[0] if len(ones) == 1 else None


def append_to_output(
    model: onnx.ModelProto,
    name: str,
    operator: str,
    *weights: onnx.TensorProto,
    **attributes: Any,  # noqa: ANN401 - as ONNX takes them
) -> None:
    """Append an operator to an output, which keeps its name."""
    graph = model.graph
    inner = f"splitplace.inner.{len(graph.node)}.{name}"
    if name in {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}:
        raise UserNetworkError(f"its output {name!r} is not computed: choose others with --output")
    for node in graph.node:
        rename(node, {name: inner})
    graph.initializer.extend(weights)
    inputs = [inner, *(weight.name for weight in weights)]
    graph.node.append(helper.make_node(operator, inputs, [name], **attributes))
    for output in graph.output:
        if output.name == name:
            output.type.tensor_type.ClearField("shape")


def _add_batch(model: onnx.ModelProto, name: str) -> None:
    if opset_of(model) < _AXES_AS_INPUT:
        append_to_output(model, name, "Unsqueeze", axes=[0])
        return
    axes = numpy_helper.from_array(np.zeros(1, np.int64), f"splitplace.axes.{name}")
    append_to_output(model, name, "Unsqueeze", axes)


def states_of(
    inputs: Sequence[NamedTensor], outputs: Sequence[NamedTensor], said: Sequence[str] = ()
) -> tuple[StateTensor, ...]:
    """Return which outputs a network reads again at its next call.

    Args:
        inputs: Its inputs.
        outputs: Its outputs.
        said: What the user says of them, as INPUT=OUTPUT; empty = those of one type whose names differ in
            their direction only, or only in a letter or number at the end of the output's.

    Raises:
        UserNetworkError: The user says what does not fit.
    """
    given = {tensor.name: tensor.spec for tensor in inputs}
    made = {tensor.name: tensor.spec for tensor in outputs}
    if said:
        states = []
        for pair in said:
            source, _, result = pair.partition("=")
            if given.get(source) is None or given[source] != made.get(result):
                raise UserNetworkError(
                    f"--state {pair}: {source!r} is no input of the type of an output {result!r}"
                )
            states.append(StateTensor(input=source, output=result))
        return tuple(states)
    found: list[StateTensor] = []
    for source, spec in given.items():
        alike = [
            name
            for name, other in made.items()
            if other == spec and is_next(source, name) and name not in {state.output for state in found}
        ]
        exact = [name for name in alike if words(name) == words(source)]
        if len(exact or alike) == 1:
            found.append(StateTensor(input=source, output=(exact or alike)[0]))
    return tuple(found)


def passes_on(graph: onnx.GraphProto, state: StateTensor) -> bool:
    """Whether the output is the input as it is, such as a mask that is handed on: that is no state."""
    makers = {name: node for node in graph.node for name in node.output}
    name = state.output
    while name in makers and makers[name].op_type in {"Identity", "Cast"}:
        name = makers[name].input[0]
    return name == state.input


def _shape(value: onnx.ValueInfoProto) -> str:
    return "x".join(str(side.dim_value or "?") for side in value.type.tensor_type.shape.dim) or "?"
