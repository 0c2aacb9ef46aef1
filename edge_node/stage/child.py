"""What the child processes of a node share: limits, the node's life, and how they say why they failed.

Imports no types of messages: the child processes stay small.
"""

import ctypes
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

OUT_OF_MEMORY = 70
"""Exit code for a stage that needs more memory than allowed."""
REFUSED = 71
"""Exit code for a stage that ONNX Runtime refuses; the reason is on standard error."""
ORPHANED = 72
"""Exit code if the node died before this process was tied to it."""

_PR_SET_PDEATHSIG = 1
_SIGNS_OF_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
    "Cannot allocate memory",
    "Available memory of",
)


def work_for(parent: int, work: Callable[[], None]) -> None:
    """Do the work of a child process, or say why not and exit with one of the codes above."""
    end_with(parent)
    try:
        work()
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    except Exception as error:  # ONNX Runtime's C++ exceptions share no base class  # noqa: BLE001
        if any(sign in str(error) for sign in _SIGNS_OF_MEMORY):
            sys.exit(OUT_OF_MEMORY)
        print(error, file=sys.stderr)  # noqa: T201 - read by the node
        sys.exit(REFUSED)


def end_with(parent: int) -> None:
    """Die with the thread that started this process: a stage that nobody waits for must not use memory."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(ORPHANED)


def limit_memory(more_bytes: int) -> None:
    """Limit the private memory of this process to what it has now and some more; the kernel enforces it."""
    found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is not None:
        limit = int(found[1]) * 1024 + more_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def limit_files(most_bytes: int) -> None:
    """End this process by SIGXFSZ when it writes a larger file: a short write could pass unnoticed."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
