"""The child process that optimises a joined stage and writes it with its weights apart.

    python -m splitplace.edge_node.stage.prepare PARENT MEMORY_BYTES FILE_BYTES PIECES FORM LAYOUT

Reads the joined model from standard input. Writes `MODEL` and `WEIGHTS` into the folder FORM. LAYOUT says
what becomes of weights: `packed` lays them out for this processor, and holds all of them while it does so.
`plain` leaves them as they are, and holds about the largest; runs are slower then, by some 10 to 20 %. The
mapped stage holds none of them. In a process of its own that memory is gone when it ends.

Writes to standard output how much private memory the bare process has, in bytes.
"""

import sys
from pathlib import Path

import onnxruntime as ort

from splitplace.edge_node.sessions import NO_PACKING, session_options
from splitplace.edge_node.stage.child import limit_files, limit_memory, work_for
from splitplace.edge_node.stage.measure import private_bytes
from splitplace.messages.limits import SMALL_WEIGHT_BYTES

MODEL = "stage.onnx"
WEIGHTS = "weights"
PACKED, PLAIN = "packed", "plain"
"""Layouts of weights."""


def main() -> None:
    """Prepare the stage, or say why not and exit with a code of `child`."""
    parent, memory_bytes, file_bytes, pieces, form, layout = sys.argv[1:]

    def work() -> None:
        print(private_bytes())  # noqa: T201 - read by the node
        model = sys.stdin.buffer.read()
        limit_files(int(file_bytes))
        limit_memory(int(memory_bytes))
        write_prepared(model, Path(pieces), Path(form), packed=layout == PACKED)

    work_for(int(parent), work)


def write_prepared(model: bytes, pieces: Path, form: Path, *, packed: bool = True) -> None:
    """Optimise a joined stage and write it into a folder.

    Args:
        model: The joined model.
        pieces: Folder with the weights files of its pieces.
        form: Folder to write to.
        packed: Whether weights are laid out for this processor.
    """
    options = session_options(threads=1, weights=pieces)
    for key, value in {
        "session.optimized_model_external_initializers_file_name": WEIGHTS,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(SMALL_WEIGHT_BYTES),
        # Weights as the matrix products of this processor want them: mapped, not made by each session.
        ("session.save_external_prepacked_constant_initializers" if packed else NO_PACKING): "1",
    }.items():
        options.add_session_config_entry(key, value)
    if not packed:  # without the layouts of convolutions
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # The arena grows by doubling, and weights that are computed while optimising would stay in it.
    options.enable_cpu_mem_arena = False
    options.optimized_model_filepath = str(form / MODEL)
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
