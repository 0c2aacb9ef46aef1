"""The memory limit holds for all sessions of a process: files, joined stages and prepared ones."""

import sys
from pathlib import Path
from subprocess import run

import pytest

from splitplace.edge_node.stage.prepared import PreparedForms
from splitplace.edge_node.stage.preparer import Limits, Preparer
from splitplace.workshop.onnx.file import file_content
from tests.support.small_pieces import SIDE, written_pieces

LIMIT_BYTES = 65 << 20
"""A budget of 1 MiB and the slack."""
TOO_MANY = LIMIT_BYTES // (16 * SIDE * SIDE * 4) + 1
"""Images whose first activations exceed the limit."""
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from splitplace.edge_node.runtime import FragmentRuntime, load_fragment
from splitplace.edge_node.sessions import limit_memory
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.session import joined_session, prepared_session
from splitplace.messages.pieces import ChainStage

kind, file, folder, prepared, description, too_many = sys.argv[1:]
stage = ChainStage.model_validate_json(description)
limit_memory(1 << 20)
runtime = {
    "file": lambda: load_fragment(Path(file)),
    "joined": lambda: FragmentRuntime(joined_session(stage, joined_from(Path(folder), stage), Path(folder))),
    "prepared": lambda: FragmentRuntime(prepared_session(stage, Path(prepared))),
}[kind]()
few = np.ones((2, *runtime.input.shape), np.float32)
before = runtime.run(few)
try:
    runtime.run(np.ones((int(too_many), *runtime.input.shape), np.float32))
except MemoryError:
    print("limited", np.array_equal(before, runtime.run(few)))
"""


@pytest.mark.parametrize("kind", ["file", "joined", "prepared"])
def test_a_run_that_exceeds_the_limit_fails_and_the_next_one_works(tmp_path: Path, kind: str) -> None:
    written = written_pieces(tmp_path)
    file = tmp_path / "whole.onnx"
    file.write_bytes(file_content(written.model))
    preparer = Preparer(written.folder, PreparedForms(tmp_path / "forms", 1 << 30), max_tensor_bytes=1 << 30)
    form = preparer.prepare(written.whole, [1], Limits(1 << 30))
    arguments = (kind, file, written.folder, form.model, written.whole.model_dump_json(), TOO_MANY)
    ended = run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "limited True"
