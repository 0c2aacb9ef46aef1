"""Run a user's network on inputs that look like real ones: each alone, then several together."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from splitplace.messages.pieces import NamedTensor
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.onnx.branches import all_nodes
from splitplace.workshop.onnx.places import Arrays, is_no_place, run_with_places, taken_inputs
from splitplace.workshop.onnx.sessions import session_of
from splitplace.workshop.user_networks.reading import PLAIN_OPSET, UserNetworkError, first_line
from splitplace.workshop.user_networks.source import sources_of

SAME_ANSWER = 1e-3
"""Greatest accepted difference between the outputs for an input alone and in a batch."""
_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
_BY_RANGE = "DynamicQuantize"
"""Beginning of the names of operators that quantise by the range of the values that they get."""
_COARSE = 8
"""Patches of a sample picture along each side."""
_AXES = 3
_DROPOUT_INPUTS = 2
"""Inputs of a `Dropout` that is not told whether it is trained."""


class CannotRunError(UserNetworkError):
    """ONNX Runtime refuses the network, or these sizes of its inputs."""


def run_of(model: onnx.ModelProto, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Return the outputs of a model by name. Raises UserNetworkError if ONNX Runtime refuses."""
    return runs_of(model, [inputs])[0]


def runs_of(model: onnx.ModelProto, batches: Sequence[Arrays]) -> list[dict[str, NDArray[Any]]]:
    """Return the outputs of a model for each batch, by name. Raises UserNetworkError as `run_of`."""
    try:
        session = session_of(model)
    except Exception as error:  # ONNX Runtime's C++ exceptions share no base class
        raise _refused(error, batches[0]) from error
    return [_run(session, inputs) for inputs in batches]


def _run(session: ort.InferenceSession, inputs: Arrays) -> dict[str, NDArray[Any]]:
    try:
        names = [output.name for output in session.get_outputs()]
        taken = {value.name for value in session.get_inputs()}
        made = session.run(names, {name: array for name, array in inputs.items() if name in taken})
    except Exception as error:  # ONNX Runtime's C++ exceptions share no base class
        raise _refused(error, inputs) from error
    if other := next((name for name, array in zip(names, made, strict=True) if not _is_array(array)), None):
        raise UserNetworkError(f"the output {other!r} is no tensor: choose others with --output")
    found = dict(zip(names, map(np.asarray, made), strict=True))
    if other := next((name for name, array in found.items() if array.dtype.kind not in "biuf"), None):
        held = "text" if found[other].dtype.kind in "OSU" else found[other].dtype
        raise UserNetworkError(
            f"the output {other!r} is {held}, which no answer holds: choose others with --output"
        )
    return found


def _refused(error: Exception, inputs: Arrays) -> CannotRunError:
    return CannotRunError(f"ONNX Runtime cannot run the model: {first_line(error)}{_advice(error, inputs)}")


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


def samples_of(inputs: Sequence[NamedTensor], count: int) -> dict[str, NDArray[Any]]:
    """Return so many samples of each input, batch first.

    Half of the last one's floats are 0: what a network chooses among values has another size then.
    """
    found = {}
    for seed, tensor in enumerate(inputs):
        array = samples(tensor.spec, count, seed)
        if array.dtype.kind == "f" and array.ndim > 1:
            array[-1] *= np.random.default_rng(seed).integers(0, 2, array.shape[1:]).astype(array.dtype)
        found[tensor.name] = array
    return found


def tried_inputs(model: onnx.ModelProto, inputs: Sequence[NamedTensor], count: int) -> Arrays:
    """Return so many samples of each input that are places in a model's tables, as far as there are such."""
    found = samples_of(inputs, count)
    if all(array.dtype.kind == "f" or array.dtype.itemsize == 1 for array in found.values()):
        return found  # without a run, which takes its time
    try:
        taken = taken_inputs(lambda tried: Alone(tried).rows(model), found)
    except UserNetworkError:
        return found  # those that run it tell what is wrong
    if taken is not found:
        with suppress(UserNetworkError):
            run_of(model, found)
            return found  # together they are places, in each other: the first axis is no batch
    return taken


class Alone:
    """Runs models on some inputs, one at a time: what a network answers does not depend on a batch then."""

    def __init__(self, inputs: Arrays) -> None:
        """Use these inputs, batch first."""
        self.inputs = inputs
        self.count = len(next(iter(inputs.values())))

    def __call__(self, model: onnx.ModelProto) -> NDArray[Any]:
        """Return the first output `[inputs, ...]`. Raises UserNetworkError if ONNX Runtime refuses."""
        return next(iter(self.outputs(model).values()))

    def first(self) -> Arrays:
        """Return the first input alone."""
        return {name: array[:1] for name, array in self.inputs.items()}

    def rows(self, model: onnx.ModelProto) -> list[dict[str, NDArray[Any]]]:
        """Return the outputs for each input. Raises UserNetworkError if ONNX Runtime refuses."""
        return runs_of(
            model,
            [{name: array[at : at + 1] for name, array in self.inputs.items()} for at in range(self.count)],
        )

    def outputs(self, model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
        """Return every output `[inputs, ...]` by name.

        Raises:
            UserNetworkError: ONNX Runtime refuses, or the size of an output depends on the input.
        """
        rows = self.rows(model)
        for name, array in rows[0].items():
            if not array.ndim or len(array) != 1:
                raise UserNetworkError(
                    f"the output {name!r} for one input is {array.dtype}{list(array.shape)}: its first "
                    "dimension is not the batch"
                )
            if any(row[name].shape != array.shape for row in rows) or not array.size:
                raise UserNetworkError(
                    f"the output {name!r} has no size of its own ({_sizes(rows, name)}): it depends on the "
                    "input, or is empty; choose others with --output"
                )
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def problem_of_batches(model: onnx.ModelProto, inputs: Arrays, expected: Arrays) -> str:
    """Return why a network cannot be run on several inputs at once; empty if it can.

    Equal is what differs by no more than a share of the largest value: larger ones are rounded more. Samples
    may be too much alike to show what quantises by the range of a whole batch.
    """
    if any(node.op_type.startswith(_BY_RANGE) for node in all_nodes(model.graph)):
        return "it quantises by the range of all inputs of a batch"
    try:
        together = run_of(model, inputs)
    except UserNetworkError as error:
        return f"it does not take several ({str(error)[:120]})"
    count = len(next(iter(inputs.values())))
    for name, array in expected.items():
        found = together[name]
        if found.shape != array.shape:
            return f"its output for {count} is {list(found.shape)}"
        wide, exact = found.astype(np.float64), array.astype(np.float64)
        if np.abs(wide - exact).max() > SAME_ANSWER * max(1.0, float(np.abs(exact).max())):
            return "its answer to an input depends on the others of the batch"
    return ""


def check_conversion(original: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    """Raise UserNetworkError unless a converted model gives what the original does."""
    inputs = {}
    for source in sources_of(original):
        sides = list(source.sides)
        if source.axis is not None:
            sides.insert(source.axis, source.batch or 1)
        if source.is_pictures:
            values: NDArray[Any] = np.random.default_rng(0).uniform(0, 1, sides)
        else:
            values = samples(TensorSpec(dtype=source.array.dtype, shape=tuple(sides)), 1)[0]
        inputs[source.name] = values.astype(helper.tensor_dtype_to_np_dtype(source.element))
    first, second = run_with_places(lambda tried: (run_of(original, tried), run_of(converted, tried)), inputs)
    for name, array in first.items():
        if array.shape != second[name].shape or not np.allclose(array, second[name], rtol=1e-3, atol=1e-5):
            raise UserNetworkError(
                "converted to a newer opset, the model gives other answers: export it with opset "
                f"{PLAIN_OPSET} or newer"
            )


def check_repeatable(model: onnx.ModelProto, inputs: Arrays) -> None:
    """Raise UserNetworkError if a network gives an input another answer each time."""
    random = [node.op_type for node in model.graph.node if _is_random(node)]
    if not random:
        return
    first, second = runs_of(model, [inputs, inputs])
    if any(not np.allclose(array, second[name], SAME_ANSWER, SAME_ANSWER) for name, array in first.items()):
        raise UserNetworkError(
            f"its answer to an input is another one each time ({', '.join(dict.fromkeys(random))[:100]}): "
            "export it for inference, or with its random numbers as an input"
        )


def _is_random(node: onnx.NodeProto) -> bool:
    is_training = node.op_type == "Dropout" and len(node.input) > _DROPOUT_INPUTS
    return is_training or (not node.domain and node.op_type in _RANDOM)


def _is_array(made: object) -> bool:
    return isinstance(made, np.ndarray | np.generic | int | float)


def _sizes(rows: Sequence[Arrays], name: str) -> str:
    return ", ".join(dict.fromkeys("x".join(map(str, row[name].shape[1:])) or "1" for row in rows))


def _advice(error: Exception, inputs: Arrays) -> str:
    """Return what may help where a number chooses what a network does, or is a place in another tensor."""
    places = [name for name, array in inputs.items() if array.dtype.kind in "iu"]
    if places and is_no_place(error):
        name = f"{places[0]}=" if len(inputs) > 1 else ""
        return (
            " (whole numbers are tried as 0 and 1, then as 0; where the first side of an input is no batch, "
            f"such as the nodes of a graph, say all its sizes: --input {name}SIZES)"
        )
    numbers = [
        name for name, array in inputs.items() if array.size == len(array) and array.dtype.kind in "iub"
    ]
    if len(inputs) < 2 or not numbers:  # noqa: PLR2004 - a number beside something else
        return ""
    return f" (if {numbers[0]!r} is always the same number, say it: --set {numbers[0]}=NUMBER)"
