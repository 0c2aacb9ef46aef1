"""Check and decode the arrays of a task: one input, or several by their names. Pure.

A task keeps its inputs as one array. Where an application takes several, that is a row of bytes for each
image: the inputs one after the other, in the order of the manifest. So the journal, and what counts bytes and
images, need not know. `arrays_of` takes the rows apart again.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from splitplace.messages.application import Application
from splitplace.messages.frames import Codec, FrameError, decompress
from splitplace.messages.limits import MAX_BATCH, MAX_TASK_INPUT_BYTES
from splitplace.messages.pieces import NamedTensor
from splitplace.messages.task import TaskRequest, TaskTensor
from splitplace.messages.tensors import ITEM_BYTES, DType, TensorSpec
from splitplace.services.gateway.refusals import refuse

ONLY_INPUT = "input"
"""Name of the input of an application that has one."""


class SentArray(Protocol):
    """An array as its sender describes it; dtype and shape may be missing."""

    @property
    def dtype(self) -> DType | None:
        """Its type."""
        ...

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Its shape, batch first."""
        ...

    @property
    def codec(self) -> Codec:
        """How its bytes are encoded."""
        ...


def array_of(sent: SentArray, encoded: bytes, spec: TensorSpec, what: str = "inputs") -> NDArray[Any]:
    """Decode an array.

    Args:
        sent: Its description.
        encoded: Its bytes.
        spec: What the application takes for each image.
        what: Its name, for people.

    Returns:
        Shape `[batch, *spec.shape]`.

    Raises:
        TaskRefusedError: It is something else than the application takes.
    """
    dtype = sent.dtype or spec.dtype
    if dtype != spec.dtype:
        refuse("bad-dtype", f"{what}: dtype {dtype}; this application takes {spec.dtype}")
    shape = sent.shape if sent.shape is not None else _guess_shape(sent, encoded, spec, what)
    if shape == spec.shape and shape[:1] != (1,):
        shape = (1, *shape)  # one input without a batch, or a tensor of an answer
    if not shape or _without_ones(shape[1:]) != _without_ones(spec.shape):
        refuse(
            "bad-shape",
            f"{what}: shape {list(shape)}; this application takes [batch, {', '.join(map(str, spec.shape))}]",
        )
    _check_batch(shape[0])
    size = prod(shape) * ITEM_BYTES[dtype]
    if size > MAX_TASK_INPUT_BYTES:
        refuse("too-large", f"{what} of {size} bytes; the limit is {MAX_TASK_INPUT_BYTES}")
    try:
        data = decompress(encoded, size) if sent.codec == "zstd" else encoded
    except FrameError as error:
        refuse("malformed", f"{what}: {error}")
    if len(data) != size:
        refuse("bad-shape", f"{what} hold {len(data)} bytes; shape {list(shape)} of {dtype} needs {size}")
    array = np.frombuffer(data, dtype=dtype).reshape(shape[0], *spec.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        refuse("malformed", f"{what} hold NaN or infinity")
    return array


def _guess_shape(sent: SentArray, encoded: bytes, spec: TensorSpec, what: str) -> tuple[int, ...]:
    """Derive the shape from the number of raw bytes."""
    if sent.codec != "raw":
        refuse("bad-shape", f"compressed {what} need a shape")
    count, rest = divmod(len(encoded), spec.bytes_per_image)
    if rest:
        refuse(
            "bad-shape",
            f"{what}: {len(encoded)} bytes are not a multiple of one input's {spec.bytes_per_image}",
        )
    return (count, *spec.shape)


def _check_batch(count: int) -> None:
    if count == 0:
        refuse("empty-batch", "an empty batch")
    if count > MAX_BATCH:
        refuse("oversized-batch", f"a batch of {count}; the limit is {MAX_BATCH}")


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dimension for dimension in shape if dimension != 1)


def named_inputs(application: Application) -> tuple[NamedTensor, ...]:
    """Return the inputs of an application by their names."""
    return application.inputs or (NamedTensor(name=ONLY_INPUT, spec=application.input),)


def rows_of(
    application: Application, tensors: Sequence[TaskTensor], given: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """Return the inputs of a task as one array: as it is for one input, else a row of bytes for each image.

    A state may be named as the output that made it, and is zeros where it is left out.

    Args:
        application: What takes them.
        tensors: Those that the task names; picture files among them are left out.
        given: Inputs that came as pictures, or without a name, by their names.

    Raises:
        TaskRefusedError: One is missing, unknown, given twice, or of another type, shape or number of images.
    """
    wanted = named_inputs(application)
    arrays = _given(application, tensors, given)
    images = len(next(iter(arrays.values())))
    specs = {tensor.name: tensor.spec for tensor in wanted}
    for state in application.states:
        zeros = np.zeros((images, *specs[state.input].shape), specs[state.input].dtype)
        arrays.setdefault(state.input, zeros)
    if missing := [name for name in specs if name not in arrays]:
        refuse("malformed", f"the inputs {', '.join(missing)} are missing"[:800])
    if len({len(array) for array in arrays.values()}) > 1:
        counts = ", ".join(f"{len(array)} of {name}" for name, array in arrays.items())
        refuse("bad-shape", f"inputs of different numbers of images: {counts}"[:800])
    if images * application.input_bytes_per_image > MAX_TASK_INPUT_BYTES:
        refuse("too-large", f"inputs of more than {MAX_TASK_INPUT_BYTES} bytes together")
    if not application.inputs:
        return arrays[wanted[0].name]
    return np.concatenate([_bytes_of(arrays[tensor.name]) for tensor in wanted], axis=1)


def input_name(application: Application, name: str) -> str:
    """Return the input that a tensor of a task is for: its own name, or that of the state that it comes from.

    Raises:
        TaskRefusedError: There is none.
    """
    names = [tensor.name for tensor in named_inputs(application)]
    found = next((state.input for state in application.states if state.output == name), name)
    found = name if name in names else found
    if found not in names:
        refuse("malformed", f"no input {name[:80]!r}; there is: {', '.join(names)}"[:800])
    return found


def pictures_of(application: Application, request: TaskRequest) -> dict[str, tuple[bytes, ...]]:
    """Return the picture files of a task by the inputs that they are for.

    Raises:
        TaskRefusedError: An input is not known or given twice.
    """
    files = {}
    if request.images is not None:
        files[named_inputs(application)[0].name] = request.images
    for tensor in request.tensors or ():
        if tensor.images is not None:
            name = input_name(application, tensor.name)
            if name in files:
                refuse("malformed", f"the input {name!r} is given twice")
            files[name] = tensor.images
    return files


def _given(
    application: Application, tensors: Sequence[TaskTensor], given: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return the inputs that a task brings, at least one."""
    specs = {tensor.name: tensor.spec for tensor in named_inputs(application)}
    arrays = dict(given)
    for tensor in tensors:
        if tensor.data is None:
            continue
        name = input_name(application, tensor.name)
        if name in arrays:
            refuse("malformed", f"the input {name!r} is given twice")
        arrays[name] = array_of(tensor, tensor.data, specs[name], repr(name))
    if not arrays:
        refuse("malformed", f"no inputs; this application takes {', '.join(specs)}"[:800])
    return arrays


def arrays_of(application: Application, rows: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
    """Return inputs of a task, or some images of them, by name: what `rows_of` has put together."""
    if not application.inputs:
        return {ONLY_INPUT: rows}
    sizes = [tensor.spec.bytes_per_image for tensor in application.inputs]
    found = {}
    for tensor, (start, end) in zip(application.inputs, pairwise(accumulate(sizes, initial=0)), strict=True):
        part = np.ascontiguousarray(rows[:, start:end]).view(tensor.spec.dtype)
        found[tensor.name] = part.reshape(len(rows), *tensor.spec.shape)
    return found


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
