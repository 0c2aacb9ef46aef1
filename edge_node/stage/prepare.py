"""The child process that optimises a joined stage and writes it with its weights apart.

    python -m splitplace.edge_node.stage.prepare PARENT MEMORY_BYTES FILE_BYTES PIECES_FOLDER FORM_FOLDER

Reads the joined model from standard input. Writes `MODEL` and `WEIGHTS` into FORM_FOLDER. It holds all
weights once, as they are optimised. The mapped stage holds none of them. In a
process of its own that memory is gone when it ends.
"""

import sys
from pathlib import Path

import onnxruntime as ort

from splitplace.edge_node.sessions import session_options
from splitplace.edge_node.stage.child import limit_files, limit_memory, work_for
from splitplace.messages.limits import SMALL_WEIGHT_BYTES

MODEL = "stage.onnx"
WEIGHTS = "weights"


def main() -> None:
    """Prepare the stage, or say why not and exit with a code of `child`."""
    parent, memory_bytes, file_bytes, pieces, form = sys.argv[1:]

    def work() -> None:
        model = sys.stdin.buffer.read()
        limit_files(int(file_bytes))
        limit_memory(int(memory_bytes))
        write_prepared(model, Path(pieces), Path(form))

    work_for(int(parent), work)


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


if __name__ == "__main__":
    main()
