"""Runs one ONNX fragment with ONNX Runtime, in one thread.

A fragment has exactly one input and one output, both with a free batch dimension first. Check the hash of a
file before loading it (`splitplace.storage.model_store.verify`).
"""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import DType, TensorSpec

_DTYPES: dict[str, DType] = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
}


class FragmentError(SplitPlaceError):
    """A fragment that cannot be loaded or run, or an input that does not fit it."""


class FragmentRuntime:
    """A loaded fragment. `run` may be called from any thread, and releases the GIL while it computes."""

    def __init__(self, path: Path) -> None:
        """Load the fragment.

        Args:
            path: An ONNX file with all its weights inside.

        Raises:
            FragmentError: ONNX Runtime refuses the file, or it does not have one input and one output of a
                supported type, each with a free first dimension and fixed others.
        """
        try:
            # From the path, not from bytes: that saves a second copy of the weights while loading.
            self._session = ort.InferenceSession(path, _options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # its C++ exceptions share no base class
            raise FragmentError(f"{path.name}: cannot be loaded: {error}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise FragmentError(
                f"{path.name}: has {len(inputs)} inputs and {len(outputs)} outputs instead of one each"
            )
        self.input = _spec(path, inputs[0])
        self.output = _spec(path, outputs[0])
        self._input_name: str = inputs[0].name
        give_back_memory()

    def run(self, array: NDArray[Any]) -> NDArray[Any]:
        """Run the fragment on a batch.

        Args:
            array: Shape `[N, *input.shape]` with N >= 1 and dtype `input.dtype`. May be read-only.

        Returns:
            Array of shape `[N, *output.shape]` and dtype `output.dtype`.

        Raises:
            FragmentError: The array does not fit the fragment, or the run failed.
        """
        if array.dtype != np.dtype(self.input.dtype) or array.shape[1:] != self.input.shape or not len(array):
            raise FragmentError(
                f"input is {array.dtype}{list(array.shape)}, "
                f"expected {self.input.dtype}[N, {', '.join(map(str, self.input.shape))}]"
            )
        try:
            output: NDArray[Any] = self._session.run(None, {self._input_name: array})[0]
        except Exception as error:
            raise FragmentError(f"the run failed: {error}") from error
        expected = (len(array), *self.output.shape)
        if output.shape != expected:
            raise FragmentError(f"output is {list(output.shape)}, expected {list(expected)}")
        return output


def give_back_memory() -> None:
    """Return freed memory to the system (26 to 100 MB after a session was loaded, measured); glibc only."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:  # noqa: ANN401 - a C function
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # musl has none
        return None


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    # One thread: two threads on a busy two-core machine cost four to seven times the CPU of one.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # External weights are read from a folder that cannot exist: no fragment can make us read another file.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return options


def _spec(path: Path, argument: Any) -> TensorSpec:  # noqa: ANN401 - a NodeArg, which has no stub
    dtype = _DTYPES.get(argument.type)
    batch, *shape = argument.shape or [0]
    if dtype is None or isinstance(batch, int) or not all(isinstance(size, int) for size in shape):
        raise FragmentError(
            f"{path.name}: {argument.name} is {argument.type}{argument.shape}, which is not supported"
        )
    try:
        return TensorSpec(dtype=dtype, shape=tuple(shape))
    except ValueError as error:
        raise FragmentError(f"{path.name}: {argument.name} has an unusable shape {argument.shape}") from error
