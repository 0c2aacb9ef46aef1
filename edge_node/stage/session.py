"""Runs one stage with ONNX Runtime: joined from its pieces, or prepared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from splitplace.edge_node.runtime import FragmentError, give_back_memory
from splitplace.messages.pieces import Bundle, ChainStage, NamedTensor

Tensors = Mapping[str, NDArray[Any]]
"""Arrays by the names of their tensors."""

_ELEMENT_TYPES = {
    "uint8": "tensor(uint8)",
    "int8": "tensor(int8)",
    "float16": "tensor(float16)",
    "float32": "tensor(float)",
}


class StageSession:
    """A loaded stage. `run` may be called from any thread, and releases the GIL while it computes."""

    def __init__(self, session: ort.InferenceSession, stage: ChainStage) -> None:
        """Use `joined_session` or `prepared_session` instead.

        Raises:
            FragmentError: The session has other inputs or outputs than the manifest says.
        """
        self.inputs: Bundle = stage.inputs
        self.outputs: Bundle = stage.outputs
        given = {tensor.name for tensor in stage.inputs}
        self._computed = [tensor for tensor in stage.outputs if tensor.name not in given]
        self._session = session
        _check(session.get_inputs(), stage.inputs)
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
        """
        images = _batch(self.inputs, tensors)
        try:
            arrays = self._session.run([tensor.name for tensor in self._computed], dict(tensors))
        except Exception as error:  # its C++ exceptions share no base class
            raise FragmentError(f"the run failed: {error}") from error
        made = {tensor.name: array for tensor, array in zip(self._computed, arrays, strict=True)}
        for tensor in self._computed:
            expected = (images, *tensor.spec.shape)
            if made[tensor.name].shape != expected:
                raise FragmentError(
                    f"{tensor.name} is {list(made[tensor.name].shape)}, expected {list(expected)}"
                )
        return {
            tensor.name: made[tensor.name] if tensor.name in made else tensors[tensor.name]
            for tensor in self.outputs
        }


def joined_session(stage: ChainStage, model: bytes, folder: Path, threads: int = 1) -> StageSession:
    """Load a joined stage as it is.

    It needs the memory of all weights while it loads and afterwards; `prepared_session` does not.

    Args:
        stage: What the manifest says of it.
        model: The joined model, from `joining.join`.
        folder: Folder with the weights files of its pieces, named by their hashes.
        threads: Threads of a run.

    Raises:
        FragmentError: ONNX Runtime refuses it.
    """
    options = session_options(threads)
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder.resolve())
    )
    return StageSession(_loaded(model, options), stage)


def prepared_session(stage: ChainStage, model: Path, threads: int = 1) -> StageSession:
    """Map a prepared stage, optimised already.

    Args:
        stage: What the manifest says of it.
        model: The prepared model; its weights lie beside it.
        threads: Threads of a run.

    Raises:
        FragmentError: ONNX Runtime refuses it.
    """
    options = session_options(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return StageSession(_loaded(model, options), stage)


def session_options(threads: int) -> ort.SessionOptions:
    """Return options for sessions of stages, which share the processor with other sessions."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # Threads that spin while they wait take the processor from other sessions: two threads, 24 sessions,
    # 450 ms instead of 47.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _loaded(model: bytes | Path, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise FragmentError(f"the stage cannot be loaded: {error}") from error


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
    images = len(tensors[bundle[0].name])
    for tensor in bundle:
        array = tensors[tensor.name]
        if (
            array.dtype != np.dtype(tensor.spec.dtype)
            or array.shape != (images, *tensor.spec.shape)
            or not images
        ):
            raise FragmentError(
                f"{tensor.name} is {array.dtype}{list(array.shape)}, "
                f"expected {tensor.spec.dtype}[N, {', '.join(map(str, tensor.spec.shape))}]"
            )
    return images
