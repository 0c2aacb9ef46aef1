"""Runs one ONNX fragment with ONNX Runtime, in one thread.

A fragment has exactly one input and one output, both with a free batch dimension first. Check the hash of a
file before loading it (`splitplace.storage.model_store.verify`).
"""

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import DType, TensorSpec
from splitplace.messages.limits import MEBIBYTE

_DTYPES: dict[str, DType] = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
}


T = TypeVar("T")

_SMALLEST: Final = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201695a0f0a0178120a0a08080112040a020801620f0a017912"
    "0a0a08080112040a02080142040a00100d"
)
"""A network that returns its input `x`, float32 `[1]`."""

_SLACK_BYTES = 64 * MEBIBYTE
_OUT_OF_MEMORY = ("Available memory of", "Failed to allocate memory", "bad_alloc", "bad allocation")
_SHRINK = "memory.enable_memory_arena_shrinkage"


class _SharedArena:
    """The memory that all sessions of this process take their tensors from."""

    def __init__(self, limit_bytes: int) -> None:
        memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        # Blocks of the size that is needed: doubling them would reach the limit with half of it unused.
        ort.create_and_register_allocator(
            memory, ort.OrtArenaCfg({"max_mem": limit_bytes, "arena_extend_strategy": 1})
        )
        self._session = ort.InferenceSession(
            _SMALLEST, _options(shared=True), providers=["CPUExecutionProvider"]
        )
        self._run_options = ort.RunOptions()
        self._run_options.add_run_config_entry(_SHRINK, "cpu:0")

    def shrink(self) -> None:
        """Give unused blocks back. Only a run can do that; any network will do."""
        self._session.run(None, {"x": np.zeros(1, np.float32)}, self._run_options)


_arena: _SharedArena | None = None


def limit_memory(budget_bytes: int) -> None:
    """Bound the tensors of all sessions of this process together, whatever their networks compute.

    Call it once, before the first session. Weights do not count: their size is that of the file.
    """
    global _arena  # noqa: PLW0603 - ONNX Runtime's environment is one for the process, too
    if _arena is None:
        _arena = _SharedArena(budget_bytes + _SLACK_BYTES)


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
            MemoryError: it takes more than is left of the limit.
        """
        try:
            # From the path, not from bytes: that saves a second copy of the weights while loading.
            self._session = _within_memory(
                lambda: ort.InferenceSession(
                    path, _options(shared=_arena is not None), providers=["CPUExecutionProvider"]
                )
            )
        except MemoryError:
            raise
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
            MemoryError: It takes more than is left of the limit.
        """
        if array.dtype != np.dtype(self.input.dtype) or array.shape[1:] != self.input.shape or not len(array):
            raise FragmentError(
                f"input is {array.dtype}{list(array.shape)}, "
                f"expected {self.input.dtype}[N, {', '.join(map(str, self.input.shape))}]"
            )
        try:
            output: NDArray[Any] = _within_memory(
                lambda: self._session.run(None, {self._input_name: array})[0]
            )
        except MemoryError:
            raise
        except Exception as error:
            raise FragmentError(f"the run failed: {error}") from error
        expected = (len(array), *self.output.shape)
        if output.shape != expected:
            raise FragmentError(f"output is {list(output.shape)}, expected {list(expected)}")
        return output


def give_back_memory() -> None:
    """Return freed memory to the system (26 to 100 MB after a session was loaded, measured); glibc only."""
    if _arena is not None:
        _arena.shrink()
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


def _options(*, shared: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    # One thread: two threads on a busy two-core machine cost four to seven times the CPU of one.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # External weights are read from a folder that cannot exist: no fragment can make us read another file.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    if shared:
        options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def _within_memory(work: Callable[[], T]) -> T:
    """Do something that allocates. Free blocks may be of the wrong sizes, so give them back and try twice.

    Raises:
        MemoryError: the limit is reached.
    """
    try:
        return work()
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
    if _arena is not None:
        _arena.shrink()
    try:
        return work()
    except Exception as error:
        if _is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise


def _is_out_of_memory(error: Exception) -> bool:
    return any(sign in str(error) for sign in _OUT_OF_MEMORY)


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
