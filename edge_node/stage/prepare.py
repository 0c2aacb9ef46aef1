"""The child process that optimises a joined stage and writes it with its weights apart.

    python -m splitplace.edge_node.stage.prepare PARENT PIECES_FOLDER FORM_FOLDER MEMORY_BYTES

Reads the joined model from standard input. Writes `MODEL` and `WEIGHTS` into FORM_FOLDER. It holds all
weights once, as they are optimised. The mapped stage holds none of them. In a
process of its own that memory is gone when it ends.
"""

import ctypes
import os
import re
import resource
import signal
import sys
from pathlib import Path

import onnxruntime as ort

from splitplace.edge_node.sessions import session_options
from splitplace.messages.limits import SMALL_WEIGHT_BYTES

MODEL = "stage.onnx"
WEIGHTS = "weights"
OUT_OF_MEMORY = 70
"""Exit code for a stage that needs more memory than allowed."""
REFUSED = 71
"""Exit code for a stage that ONNX Runtime refuses; the reason is on standard error."""
ORPHANED = 72
"""Exit code if the node died before this process was tied to it."""

_PR_SET_PDEATHSIG = 1
_SIGNS_OF_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Cannot allocate memory")


def main() -> None:
    """Prepare the stage, or say why not and exit with one of the codes above."""
    parent, pieces, form, memory_bytes = sys.argv[1:]
    _end_with(int(parent))
    model = sys.stdin.buffer.read()
    try:
        limit_memory(int(memory_bytes))
        write_prepared(model, Path(pieces), Path(form))
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    except Exception as error:  # ONNX Runtime's C++ exceptions share no base class  # noqa: BLE001
        if any(sign in str(error) for sign in _SIGNS_OF_MEMORY):
            sys.exit(OUT_OF_MEMORY)
        print(error, file=sys.stderr)  # noqa: T201 - read by the node
        sys.exit(REFUSED)


def write_prepared(model: bytes, pieces: Path, form: Path) -> None:
    """Optimise a joined stage and write it into a folder.

    Args:
        model: The joined model.
        pieces: Folder with the weights files of its pieces.
        form: Folder to write to.
    """
    options = session_options(threads=1, weights=pieces)
    for key, value in {
        "session.optimized_model_external_initializers_file_name": WEIGHTS,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(SMALL_WEIGHT_BYTES),
        # Weights as the matrix products of this processor want them: mapped, not made by each session.
        "session.save_external_prepacked_constant_initializers": "1",
    }.items():
        options.add_session_config_entry(key, value)
    # The arena grows by doubling, and weights that are computed while optimising would stay in it.
    options.enable_cpu_mem_arena = False
    options.optimized_model_filepath = str(form / MODEL)
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def limit_memory(more_bytes: int) -> None:
    """Limit the private memory of this process to what it has now and some more; the kernel enforces it."""
    found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is not None:
        limit = int(found[1]) * 1024 + more_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _end_with(parent: int) -> None:
    """Die with the node: a stage that nobody waits for must not use its memory."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(ORPHANED)


if __name__ == "__main__":
    main()
