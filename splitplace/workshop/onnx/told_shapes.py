"""Tell the shapes that `onnx` cannot infer: run the network with some batch sizes, and look.

Operators of other domains, loops, and some forms of quantisation have no shape inference. What is told stands
in the model's `value_info`, and sides that grow with the batch are called `batch`, or `2*batch`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from splitplace.workshop.onnx.file import BATCH
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.onnx.inference import GraphError
from splitplace.workshop.onnx.places import run_with_places
from splitplace.workshop.onnx.sessions import session_of

_BATCHES = (1, 2, 3)


def with_told_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the shapes of all tensors outside its branches, as far as they are fixed.

    A tensor whose size depends on the values of the input stays without one.

    Args:
        model: Its inputs have all sizes fixed but a batch, or a batch of one. It is not changed.

    Returns:
        A changed copy, or the model itself where `onnx` can infer all.

    Raises:
        ValueError: ONNX Runtime cannot run it.
    """
    unknown = _unknown(model)
    if not unknown:
        return model
    is_free = not any(value.type.tensor_type.shape.dim[0].dim_value for value in _inputs(model.graph))
    runs = _runs(model, unknown, _BATCHES if is_free else (1, 1))
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    kept = [value for value in changed.graph.value_info if value.name not in unknown]
    del changed.graph.value_info[:]
    changed.graph.value_info.extend(kept)
    for name, arrays in zip(unknown, zip(*runs, strict=True), strict=True):
        value = _value(name, arrays, is_free=is_free)
        if value is not None:
            changed.graph.value_info.append(value)
    return changed


def _unknown(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the tensors whose shapes cannot be inferred."""
    try:
        return Graph(model).untold
    except GraphError:
        return tuple(dict.fromkeys(name for node in model.graph.node for name in node.output if name))


def _runs(
    model: onnx.ModelProto, names: Sequence[str], batches: Sequence[int]
) -> list[list[NDArray[Any] | None]]:
    """Return the values of some tensors at each batch size; None for what is no tensor."""
    asking = onnx.ModelProto()
    asking.CopyFrom(model)
    del asking.graph.output[:]
    asking.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        session = session_of(asking)
        # What an optional holds looks like an array, too.
        are_tensors = [output.type.startswith("tensor(") for output in session.get_outputs()]
        runs = [
            run_with_places(
                partial(session.run, None),
                {value.name: _noise(value, batch, seed) for value in _inputs(model.graph)},
            )
            for seed, batch in enumerate(batches)
        ]
        return [
            [made if is_tensor else None for made, is_tensor in zip(run, are_tensors, strict=True)]
            for run in runs
        ]
    except Exception as error:  # ONNX Runtime's C++ exceptions share no base class
        raise ValueError(f"the network does not run with batches of {list(batches)}: {error}") from error


def _value(name: str, arrays: Sequence[NDArray[Any] | None], *, is_free: bool) -> onnx.ValueInfoProto | None:
    """Describe a tensor by its values at each batch size; None where its size follows no rule."""
    shapes = [array.shape for array in arrays if array is not None]
    if len(shapes) < len(arrays) or len({len(shape) for shape in shapes}) > 1:
        return None
    sides: list[int | str] = []
    for sizes in zip(*shapes, strict=True):
        if len(set(sizes)) == 1:
            sides.append(sizes[0])
        elif is_free and all(size == sizes[0] * batch for size, batch in zip(sizes, _BATCHES, strict=True)):
            sides.append(BATCH if sizes[0] == 1 else f"{sizes[0]}*{BATCH}")
        else:
            return None
    (array, *_) = (array for array in arrays if array is not None)
    element = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, element, sides)


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _noise(value: onnx.ValueInfoProto, batch: int, seed: int) -> NDArray[Any]:
    """Return values between 0 and 1: they may be places in a table."""
    tensor = value.type.tensor_type
    shape = (batch, *(side.dim_value for side in tensor.shape.dim[1:]))
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    random = np.random.default_rng(seed)
    noise = random.uniform(0, 1, shape) if dtype.kind == "f" else random.integers(0, 2, shape)
    return np.asarray(noise, dtype)
