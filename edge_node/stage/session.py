"""Runs one stage with ONNX Runtime: from one file, joined from its pieces, or prepared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import ValidationError

from splitplace.edge_node.sessions import (
    NOWHERE,
    FragmentError,
    give_back_memory,
    load,
    prepared_options,
    session_options,
    within_memory,
)
from splitplace.messages.pieces import Bundle, ChainStage, NamedTensor
from splitplace.messages.tensors import DType, TensorSpec

Tensors = Mapping[str, NDArray[Any]]
"""Arrays by the names of their tensors."""

_ELEMENT_TYPES: dict[DType, str] = {
    "uint8": "tensor(uint8)",
    "int8": "tensor(int8)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
    "float16": "tensor(float16)",
    "float32": "tensor(float)",
}
_DTYPES = {element_type: dtype for dtype, element_type in _ELEMENT_TYPES.items()}


class StageSession:
    """A loaded stage. `run` may be called from any thread, and releases the GIL while it computes."""

    def __init__(self, session: ort.InferenceSession, inputs: Bundle, outputs: Bundle) -> None:
        """Use `file_session`, `joined_session` or `prepared_session` instead.

        Args:
            session: From `sessions.load`.
            inputs: What it takes.
            outputs: What it gives; those that are also inputs are handed on.

        Raises:
            FragmentError: The session has other inputs or outputs.
        """
        self.inputs = inputs
        self.outputs = outputs
        given = {tensor.name for tensor in inputs}
        self._computed = [tensor for tensor in outputs if tensor.name not in given]
        self._session = session
        _check(session.get_inputs(), inputs)
        _check(session.get_outputs(), self._computed)
        give_back_memory()

    def run(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """Run the stage on a batch.

        Args:
            tensors: The stage's inputs, each `[N, *shape]` with the same N >= 1. May be read-only.

        Returns:
            The stage's outputs, each `[N, *shape]`. Those that are also inputs are handed on as they are.

        Raises:
            FragmentError: The tensors do not fit the stage, or the run failed.
            MemoryError: It takes more than is left of the limit.
        """
        images = _batch(self.inputs, tensors)
        names = [tensor.name for tensor in self._computed]
        try:
            arrays = within_memory(lambda: self._session.run(names, dict(tensors)))
        except MemoryError:
            raise
        except Exception as error:  # its C++ exceptions share no base class
            raise FragmentError(f"the run failed: {error}") from error
        made: dict[str, NDArray[Any]] = dict(zip(names, arrays, strict=True))
        for tensor in self._computed:
            expected = (images, *tensor.spec.shape)
            if made[tensor.name].shape != expected:
                raise FragmentError(
                    f"output {tensor.name} is {list(made[tensor.name].shape)}, expected {list(expected)}"
                )
        return {
            tensor.name: made[tensor.name] if tensor.name in made else tensors[tensor.name]
            for tensor in self.outputs
        }


def file_session(path: Path, threads: int = 1, *, spinning: bool = False) -> StageSession:
    """Load a stage from an ONNX file with all its weights inside.

    Args:
        path: The file.
        threads: Threads of a run.
        spinning: Whether threads that wait for others in a run spin.

    Raises:
        FragmentError: ONNX Runtime refuses it, or one of its inputs or outputs is of a type that is not
            supported, has a fixed first dimension, or other dimensions that are free.
        MemoryError: It takes more than is left of the limit.
    """
    session = load(path, session_options(threads, weights=NOWHERE, spinning=spinning))
    inputs, outputs = session.get_inputs(), session.get_outputs()
    return StageSession(session, tuple(map(_tensor, inputs)), tuple(map(_tensor, outputs)))


def joined_session(
    stage: ChainStage, model: bytes, folder: Path, threads: int = 1, *, spinning: bool = False
) -> StageSession:
    """Load a joined stage as it is.

    It needs the memory of all weights while it loads and afterwards; `prepared_session` does not.

    Args:
        stage: What the manifest says of it.
        model: The joined model, from `joining.join`.
        folder: Folder with the weights files of its pieces, named by their hashes.
        threads: Threads of a run.
        spinning: Whether threads that wait for others in a run spin.

    Raises:
        FragmentError: ONNX Runtime refuses it.
        MemoryError: It takes more than is left of the limit.
    """
    session = load(model, session_options(threads, weights=folder, spinning=spinning))
    return StageSession(session, stage.inputs, stage.outputs)


def prepared_session(
    stage: ChainStage, model: Path, threads: int = 1, *, spinning: bool = False, packed: bool = True
) -> StageSession:
    """Map a prepared stage, optimised already.

    Args:
        stage: What the manifest says of it.
        model: The prepared model; its weights lie beside it.
        threads: Threads of a run.
        spinning: Whether threads that wait for others in a run spin.
        packed: Whether its weights are laid out for this processor.

    Raises:
        FragmentError: ONNX Runtime refuses it.
        MemoryError: It takes more than is left of the limit.
    """
    options = prepared_options(threads, spinning=spinning, packed=packed)
    return StageSession(load(model, options), stage.inputs, stage.outputs)


def _tensor(argument: Any) -> NamedTensor:  # noqa: ANN401 - a NodeArg, which has no stub
    """Return an input or output as a manifest would describe it. Raise FragmentError if it cannot."""
    dtype = _DTYPES.get(argument.type)
    batch, *shape = argument.shape or [0]
    if dtype is None or isinstance(batch, int) or not all(isinstance(size, int) for size in shape):
        raise FragmentError(f"{argument.name} is {argument.type}{argument.shape}, which is not supported")
    try:
        return NamedTensor(name=argument.name, spec=TensorSpec(dtype=dtype, shape=tuple(shape)))
    except ValidationError as error:
        raise FragmentError(f"{argument.name} has an unusable name or shape {argument.shape}") from error


def _check(arguments: Any, expected: list[NamedTensor] | Bundle) -> None:  # noqa: ANN401 - NodeArgs have no stub
    found = {argument.name: (argument.type, tuple(argument.shape[1:])) for argument in arguments}
    wanted = {
        tensor.name: (_ELEMENT_TYPES[tensor.spec.dtype], tuple(tensor.spec.shape)) for tensor in expected
    }
    if found != wanted:
        raise FragmentError(f"the stage has the tensors {found}, but its network describes {wanted}")


def _batch(bundle: Bundle, tensors: Tensors) -> int:
    """Return the number of images. Raise FragmentError if the tensors are not the bundle."""
    names = {tensor.name for tensor in bundle}
    if tensors.keys() != names:
        raise FragmentError(f"the inputs are {sorted(tensors)}, expected {sorted(names)}")
    images = next(iter(tensors[bundle[0].name].shape), 0)
    for tensor in bundle:
        array = tensors[tensor.name]
        if (
            array.dtype != np.dtype(tensor.spec.dtype)
            or array.shape != (images, *tensor.spec.shape)
            or not images
        ):
            raise FragmentError(
                f"input {tensor.name} is {array.dtype}{list(array.shape)}, "
                f"expected {tensor.spec.dtype}[N, {', '.join(map(str, tensor.spec.shape))}]"
            )
    return images
