"""Adapt a user's ONNX file: what sensors send in, logits out, any batch size where the network allows it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from splitplace.edge_node.graph_check import GraphRefusedError, check_bytes
from splitplace.messages.application import Scores
from splitplace.messages.limits import MAX_BUNDLE_TENSORS, MAX_GRAPH_FILE_BYTES, MEBIBYTE
from splitplace.messages.pictures import PictureInput
from splitplace.messages.pieces import NamedTensor, SeveralTensors
from splitplace.messages.sound import SoundInput
from splitplace.messages.states import StateTensor
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.onnx.batch_size import with_plain_sizes
from splitplace.workshop.onnx.branches import all_nodes
from splitplace.workshop.onnx.file import BATCH, finish
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.onnx.light import without_weights
from splitplace.workshop.onnx.told_shapes import with_told_shapes
from splitplace.workshop.user_networks.beginning import free_batch, put_reading_in_front, with_values
from splitplace.workshop.user_networks.ending import OutputKind, end_with_logits
from splitplace.workshop.user_networks.heads import HeadWishes, MadeHead, append_head
from splitplace.workshop.user_networks.outputs import (
    outputs_batch_first,
    passes_on,
    states_of,
    with_outputs,
    without_unread_inputs,
)
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import (
    UserNetworkError,
    first_line,
    in_one_graph,
    in_readable_opset,
    opset_of,
)
from splitplace.workshop.user_networks.source import Source, pictures_among, sized, sources_of
from splitplace.workshop.user_networks.state_names import states_by_name
from splitplace.workshop.user_networks.trial import (
    Alone,
    check_conversion,
    check_repeatable,
    problem_of_batches,
    run_of,
    tried_inputs,
)
from splitplace.workshop.user_networks.turns import with_constant_turns

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
    """What sensors send; the first of `inputs` where that is several tensors."""
    kind: OutputKind = "logits"
    """What its own output was."""
    scores: Scores = "softmax"
    """How confidences are made of the logits."""
    one_by_one: bool = False
    """Whether it must be run on one input at a time."""
    notes: tuple[str, ...] = ()
    """What was recognised or chosen, for people."""
    pictures: PictureInput | None = None
    """Preprocessing; None where it takes no pictures."""
    sound: SoundInput | None = None
    """Preprocessing of sound; None where it takes no sound."""
    made: MadeHead | None = None
    """Its end, where its answers are no classes."""
    inputs: SeveralTensors = ()
    """All that sensors send, by name, where that is several tensors."""
    states: tuple[StateTensor, ...] = ()
    """Outputs that it reads again at its next call."""

    @property
    def named_inputs(self) -> tuple[NamedTensor, ...]:
        """Its inputs, by the names that they have in the model."""
        return self.inputs or (NamedTensor(name=self.model.graph.input[0].name, spec=self.input),)


@dataclass(frozen=True)
class Wishes:
    """What a user says of an ONNX file."""

    input: str = ""
    """Sizes of its inputs, as `source.sized` takes them."""
    output: str = ""
    """Name of the output to serve, where there are several; or names, with commas, for answers of tensors."""
    output_kind: OutputKind | None = None
    """What the output is; None = recognise it."""
    head: HeadWishes | None = None
    """What answers of other kinds than classes are made of."""
    values: tuple[str, ...] = ()
    """Inputs that always have the same values, as NAME=VALUE."""
    states: tuple[str, ...] = ()
    """Outputs that are read again at the next call, as INPUT=OUTPUT; empty = recognise them."""
    are_arrays: bool = False
    """Whether sensors send arrays, even where an input could be pictures."""
    pictures: tuple[str, ...] = ()
    """Inputs that are pictures, the first one first; empty = recognise them."""

    @property
    def first(self) -> str:
        """The input that comes first; empty = the first of pictures."""
        return self.pictures[0] if self.pictures else ""


def prepared(model: onnx.ModelProto, wishes: Wishes = Wishes()) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a model with the outputs to serve, fixed sizes and readable operators, and notes for people.

    Raises:
        UserNetworkError: It has other inputs or outputs, or what the user says does not fit it.
    """
    opset = opset_of(model)
    head = wishes.head
    with_all = head is not None and head.kind in {"detection", "tensors"}
    chosen = with_outputs(in_one_graph(model), wishes.output, all_of_them=with_all)
    chosen, set_notes = with_values(chosen, wishes.values)
    chosen, notes = without_unread_inputs(chosen)
    fixed, more = sized(chosen, wishes.input)
    fixed = with_constant_turns(fixed)
    check_bounds(fixed)
    notes = (*set_notes, *notes, *more)
    several = max(len(sources_of(fixed)), len(fixed.graph.output))
    if several > MAX_BUNDLE_TENSORS:
        raise UserNetworkError(f"it has {several} inputs or outputs; a task has at most {MAX_BUNDLE_TENSORS}")
    readable = in_readable_opset(fixed)
    if readable is not fixed:
        check_conversion(fixed, readable)
        notes = (*notes, f"converted from opset {opset}; its answers are those of the file")
    return readable, notes


def adopt(model: onnx.ModelProto, preprocessing: Preprocessing | None, wishes: Wishes = Wishes()) -> Adopted:
    """Return the network from what sensors send to logits, with a free batch where it allows one.

    Args:
        model: Inputs of any type, and an output of a number for each class, or others for other kinds of
            answers. It is not changed.
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
    sources = sources_of(changed, wishes.first, wishes.states)
    pictures = () if wishes.are_arrays else _pictures(changed, sources, wishes)
    if preprocessing is None and any(
        source.element != TensorProto.UINT8 for source in sources if source.name in pictures
    ):
        raise UserNetworkError(
            "the model reads floats: give the preprocessing from bytes (mean and deviation)"
        )
    if len(pictures) > 1:
        alike = "as is said" if wishes.pictures else f"{pictures[0]} and what has its type and size"
        notes = (*notes, f"pictures, all prepared alike: {', '.join(pictures)} ({alike}; --picture NAME)")
    given = put_reading_in_front(changed, sources, preprocessing, pictures)
    alone = Alone(tried_inputs(changed, given, _TRIED))
    check_repeatable(changed, alone.first())
    problem = next((_unbatched(source) for source in sources if source.axis is None), "")
    problem = problem or _freed(changed, sources[0].batch, alone)
    problem = outputs_batch_first(changed, alone) or problem
    if wishes.head is not None:
        return _with_head(changed, given, alone, notes, wishes, problem)
    if wishes.states:
        raise UserNetworkError("--state: an answer of classes brings no state; --kind tensors does")
    ending = end_with_logits(changed, alone, wishes.output_kind)
    notes = (*notes, f"its output is taken for {ending.kind}: {ending.recognised_by}")
    expected = alone.outputs(changed)
    problem = problem or problem_of_batches(changed, alone.inputs, expected)
    if problem:
        notes = (*notes, f"run on one input at a time: {problem}")
    (name,) = expected
    del changed.graph.output[:]
    changed.graph.output.append(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, ending.columns])
    )
    finished = _finished(changed, one_by_one=bool(problem))
    return Adopted(
        finished,
        given[0].spec,
        ending.kind,
        ending.scores,
        bool(problem),
        (*notes, *_about_inputs(given)),
        inputs=given if len(given) > 1 else (),
    )


def _pictures(model: onnx.ModelProto, sources: Sequence[Source], wishes: Wishes) -> tuple[str, ...]:
    outputs = [output.name for output in model.graph.output]
    states = states_by_name([source.name for source in sources], outputs, wishes.states)
    return pictures_among(sources, wishes.pictures, states)


def _with_head(  # noqa: PLR0917 - what is known so far
    changed: onnx.ModelProto,
    given: tuple[NamedTensor, ...],
    alone: Alone,
    notes: tuple[str, ...],
    wishes: Wishes,
    problem: str,
) -> Adopted:
    """Return a network whose answers are no classes. It is judged by its own outputs, before its new end."""
    if wishes.head is None:
        raise ValueError("a head must be wished for")
    expected = alone.outputs(changed)
    if not all(np.isfinite(array).all() for array in expected.values() if array.dtype.kind == "f"):
        raise UserNetworkError("the model answers random inputs with NaN or infinity; check its weights")
    problem = problem or problem_of_batches(changed, alone.inputs, expected)
    if problem:
        notes = (*notes, f"run on one input at a time: {problem}")
    made = append_head(changed, expected, given[0].spec, wishes.head)
    states = _states(changed, given, made.outputs, wishes)
    finished = _finished(changed, one_by_one=bool(problem))
    if states:
        pairs = ", ".join(f"{state.output} comes back as {state.input}" for state in states)
        notes = (*notes, f"states: {pairs}; zeros at first" + ("" if wishes.states else " (by their names)"))
    return Adopted(
        finished,
        given[0].spec,
        one_by_one=bool(problem),
        notes=(*notes, *made.notes, *_about_inputs(given)),
        made=made,
        inputs=given if len(given) > 1 else (),
        states=states,
    )


def _states(
    model: onnx.ModelProto, given: tuple[NamedTensor, ...], outputs: tuple[NamedTensor, ...], wishes: Wishes
) -> tuple[StateTensor, ...]:
    if len(given) == 1:
        if wishes.states:
            raise UserNetworkError("--state needs an input beside the state: this network has one input")
        return ()
    found = states_of(given, outputs, wishes.states)
    return found if wishes.states else tuple(state for state in found if not passes_on(model.graph, state))


def _about_inputs(given: tuple[NamedTensor, ...]) -> tuple[str, ...]:
    """Return what is to be sent, where it is several tensors."""
    if len(given) == 1:
        return ()
    shown = ", ".join(
        f"{tensor.name} {tensor.spec.dtype}[{', '.join(map(str, tensor.spec.shape))}]" for tensor in given
    )
    return (f"a task brings, for each input: {shown}",)


def _freed(model: onnx.ModelProto, fixed: int, alone: Alone) -> str:
    """Free the batch of a model in place, and return why it cannot be freed; empty if it can."""
    if not fixed:
        return ""
    before = onnx.ModelProto()
    before.CopyFrom(model)
    free_batch(model.graph, fixed)
    if fixed > 1:
        return ""
    expected = run_of(before, alone.first())
    reason = problem_of_batches(model, alone.first(), expected)
    if not reason:
        return ""
    model.CopyFrom(before)
    return "its batch of one cannot be freed"


def _unbatched(source: Source) -> str:
    return f"its input {source.name!r} is one for all of a batch"


def _finished(model: onnx.ModelProto, *, one_by_one: bool) -> onnx.ModelProto:
    """Return a model with all its shapes, and sizes that depend on the batch alone."""
    if one_by_one:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
    try:
        finished = finish(with_told_shapes(with_plain_sizes(model)))
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserNetworkError(f"the model's shapes cannot be inferred: {first_line(error)}") from error
    graph = Graph(finished)
    made = {*graph.inputs, *(name for node in graph.nodes for name in node.output)}
    if fixed := [name for name in graph.outputs if name not in made]:
        raise UserNetworkError(
            f"its output {fixed[0]!r} is the same for all inputs of these sizes: choose others with --output"
        )
    untold = {output.name for output in finished.graph.output}.intersection(graph.untold)
    if untold:
        raise UserNetworkError(
            f"the size of the output {min(untold)!r} depends on the values of the input: choose others with "
            "--output, or export it without its last selection (suppression, Compress, NonZero)"
        )
    return finished


def check_bounds(model: onnx.ModelProto) -> None:
    """Refuse, before anything runs, what a node would refuse: work or memory without bound.

    Raises:
        UserNetworkError: The model holds such loops, tensors that are too large, or an operator that has no
            room in a piece.
    """
    for node in all_nodes(model.graph):
        size = node.ByteSize()
        if size > MAX_GRAPH_FILE_BYTES and node.op_type != "Constant":
            advice = ": train fewer or smaller trees" if node.op_type.startswith("TreeEnsemble") else ""
            raise UserNetworkError(
                f"its operator {node.op_type} holds {size / MEBIBYTE:.3g} MiB itself, beside the weights of "
                f"the network, and a node takes {MAX_GRAPH_FILE_BYTES // MEBIBYTE} MiB of that{advice}"
            )
    known, weights = without_weights(model)
    # What does not fit together is said by others, better.
    with suppress(ValueError, RuntimeError, onnx.shape_inference.InferenceError):
        known = onnx.shape_inference.infer_shapes(known, data_prop=True)
    own = [value for value in known.graph.input if value.name not in weights]
    del known.graph.input[:]  # the bound is of tensors inside, not of weights
    known.graph.input.extend(own)
    try:
        check_bytes(known.SerializeToString(), MAX_INNER_TENSOR_BYTES)
        known.graph.ClearField("value_info")  # nodes are not told the lengths of what a Scan goes over
        check_bytes(known.SerializeToString(), MAX_INNER_TENSOR_BYTES)
    except GraphRefusedError as error:
        raise UserNetworkError(f"no node would run this network: {error}") from error


def pictures_without_answer(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return which plain pictures (black, grey, white) a network of bytes answers with NaN or infinity."""
    source, *others = model.graph.input
    if others or source.type.tensor_type.elem_type != TensorProto.UINT8:
        return ()
    shape = tuple(dimension.dim_value for dimension in source.type.tensor_type.shape.dim[1:])
    found = []
    for name, value in (("black", 0), ("grey", 128), ("white", 255)):
        picture = np.full((1, *shape), value, np.uint8)
        if not np.isfinite(next(iter(run_of(model, {source.name: picture}).values()))).all():
            found.append(name)
    return tuple(found)
