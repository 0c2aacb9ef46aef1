"""Sessions of ONNX Runtime: their options, the memory that they share, and its limit.

Imports no types of messages: the child process that prepares stages stays small.
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

from splitplace.errors import SplitPlaceError
from splitplace.messages.limits import MEBIBYTE

T = TypeVar("T")

NOWHERE: Final = Path(os.devnull)
"""A folder that cannot exist: a model that is loaded with it reads no weights outside itself."""

_SMALLEST: Final = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201695a0f0a0178120a0a08080112040a020801620f0a017912"
    "0a0a08080112040a02080142040a00100d"
)
"""A network that returns its input `x`, float32 `[1]`."""

_SLACK_BYTES = 64 * MEBIBYTE
_OUT_OF_MEMORY = ("Available memory of", "Failed to allocate memory", "bad_alloc", "bad allocation")
NO_PACKING: Final = "session.disable_prepacking"
_SHRINK = "memory.enable_memory_arena_shrinkage"


class FragmentError(SplitPlaceError):
    """A fragment or stage that cannot be loaded or run, or an input that does not fit it."""


class _SharedArena:
    """The memory that all sessions of this process take their tensors from."""

    def __init__(self, limit_bytes: int) -> None:
        memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        # Blocks of the size that is needed: doubling them would reach the limit with half of it unused.
        ort.create_and_register_allocator(
            memory, ort.OrtArenaCfg({"max_mem": limit_bytes, "arena_extend_strategy": 1})
        )
        options = session_options(threads=1, weights=NOWHERE)
        _share_memory(options)
        self._session = ort.InferenceSession(_SMALLEST, options, providers=["CPUExecutionProvider"])
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


def session_options(threads: int, weights: Path | None, *, spinning: bool = False) -> ort.SessionOptions:
    """Return the options of a session that shares processor and memory with other sessions.

    Args:
        threads: Threads of a run. Two threads on a busy two-core machine cost four to seven times the CPU of
            one.
        weights: Folder of weights outside the model: `NOWHERE` if it has none; None for the model's own.
        spinning: Whether threads that wait for others in a run spin. They never do between runs.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    # Threads that spin while they wait take the processor from other sessions: two threads, 24 sessions,
    # 450 ms instead of 47.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if weights is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(weights.absolute())
        )
    if _arena is not None:
        _share_memory(options)
    return options


def prepared_options(threads: int, *, spinning: bool = False, packed: bool = True) -> ort.SessionOptions:
    """Return the options of a session of a prepared stage: optimised already, its weights beside it.

    Args:
        threads: Threads of a run.
        spinning: Whether threads that wait for others in a run spin.
        packed: Whether its weights are laid out for this processor. Others are used as they are: laid out by
            the session, they would be a private copy.
    """
    options = session_options(threads, weights=None, spinning=spinning)
    if not packed:
        options.add_session_config_entry(NO_PACKING, "1")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def load(model: bytes | Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """Load a model.

    Args:
        model: A path rather than its content saves a second copy of the weights while loading.
        options: From `session_options`.

    Raises:
        FragmentError: ONNX Runtime refuses it.
        MemoryError: It takes more than is left of the limit.
    """
    try:
        return within_memory(lambda: ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]))
    except MemoryError:
        raise
    except Exception as error:  # its C++ exceptions share no base class
        raise FragmentError(f"it cannot be loaded: {error}") from error


def within_memory(work: Callable[[], T]) -> T:
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


def _share_memory(options: ort.SessionOptions) -> None:
    options.add_session_config_entry("session.use_env_allocators", "1")


def _is_out_of_memory(error: Exception) -> bool:
    return any(sign in str(error) for sign in _OUT_OF_MEMORY)
