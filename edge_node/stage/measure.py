"""The child process that loads a stage, runs it, and says how much private memory that takes.

    python -m splitplace.edge_node.stage.measure PARENT MEMORY_BYTES MODEL

Reads `Wanted` from standard input and writes `Measured` to standard output, both as JSON. It loads and runs
as a node does. What the first session of a process costs, whatever it holds, is not counted: a node has paid
that when it loads a stage.
"""

import json
import re
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from splitplace.edge_node import sessions
from splitplace.edge_node.stage import child

RUNS = 2
"""Runs of each size: ONNX Runtime plans the memory of a size in its first run, for those that follow."""
_SAMPLE_S = 0.001


class Input(TypedDict):
    """One input of the stage."""

    name: str
    dtype: str
    shape: list[int]
    """Without the batch."""


class Wanted(TypedDict):
    """What to run."""

    inputs: list[Input]
    packed: bool
    """Whether its weights are laid out for this processor."""
    weights: NotRequired[str]
    """Folder with the weights of its pieces, where the stage is joined and not prepared."""
    micro_batches: list[int]
    """Ascending: memory that a small one has left is reused by a larger one, or counts."""


class Run(TypedDict):
    """One size of micro-batch."""

    micro_batch: int
    private_bytes: int
    """Greatest private memory so far, with inputs and outputs, above the process without the stage."""
    milliseconds: float
    """Time of the last run, in one thread."""


class Measured(TypedDict):
    """What it took."""

    loading_bytes: int
    """Peak while loading."""
    loaded_bytes: int
    runs: list[Run]


def main() -> None:
    """Measure the stage, or say why not and exit with a code of `child`."""
    parent, memory_bytes, model = sys.argv[1:]

    def work() -> None:
        wanted: Wanted = json.load(sys.stdin)
        print(json.dumps(measured(Path(model), wanted, int(memory_bytes))))  # noqa: T201 - read by the node

    child.work_for(int(parent), work)


def measured(model: Path, wanted: Wanted, memory_bytes: int) -> Measured:
    """Load and run a stage.

    Args:
        model: The prepared model, whose weights lie beside it, or the joined one.
        wanted: Its inputs, and the micro-batches to run.
        memory_bytes: Private memory that it may use.

    Raises:
        MemoryError: It needs more.
        FragmentError: ONNX Runtime refuses it.
    """
    sessions.limit_memory(memory_bytes)
    sessions.give_back_memory()
    base_bytes = private_bytes()
    child.limit_memory(memory_bytes)
    with _Peak() as peak:
        session = _loaded(model, wanted)
        loading_bytes = peak.take()
        sessions.give_back_memory()
        loaded_bytes = private_bytes()
        peak.take()
        number = _number_taken(session, wanted)
        runs: list[Run] = []
        for micro_batch in wanted["micro_batches"]:
            for _ in range(RUNS):
                inputs = {each["name"]: _images(each, micro_batch, number) for each in wanted["inputs"]}
                began = time.perf_counter()
                outputs = sessions.within_memory(partial(session.run, None, inputs))
                milliseconds = 1000 * (time.perf_counter() - began)
                peak.look()
                del outputs, inputs
            runs.append(
                Run(
                    micro_batch=micro_batch,
                    private_bytes=max(0, peak.greatest - base_bytes),
                    milliseconds=milliseconds,
                )
            )
    return Measured(
        loading_bytes=max(0, loading_bytes - base_bytes, loaded_bytes - base_bytes),  # what stays was there
        loaded_bytes=max(0, loaded_bytes - base_bytes),
        runs=runs,
    )


def _loaded(model: Path, wanted: Wanted) -> ort.InferenceSession:
    """Load the stage as a node does."""
    if "weights" in wanted:
        return sessions.load(model.read_bytes(), sessions.session_options(1, Path(wanted["weights"])))
    return sessions.load(model, sessions.prepared_options(threads=1, packed=wanted["packed"]))


def private_bytes(process: int | str = "self") -> int:
    """Return the private memory of a process (`RssAnon`); 0 if it has ended or the system does not tell."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


class _Peak:
    """The greatest private memory of this process, looked at by a thread."""

    def __init__(self) -> None:
        self.greatest = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def look(self) -> None:
        """Look now."""
        self.greatest = max(self.greatest, private_bytes())

    def take(self) -> int:
        """Return the greatest so far, and begin anew."""
        self.look()
        taken, self.greatest = self.greatest, 0
        return taken

    def _watch(self) -> None:
        while not self._ending.wait(_SAMPLE_S):
            self.look()


def _number_taken(session: ort.InferenceSession, wanted: Wanted) -> int:
    """Return a number that a stage takes as input: 1, or 0 where that is no place in a table of one row."""
    if not any(each["dtype"] in {"int32", "int64"} for each in wanted["inputs"]):
        return 1
    inputs = {each["name"]: _images(each, wanted["micro_batches"][0], 1) for each in wanted["inputs"]}
    try:
        sessions.within_memory(partial(session.run, None, inputs))
    except MemoryError:
        raise
    except Exception:  # ONNX Runtime's C++ exceptions share no base class  # noqa: BLE001
        return 0
    return 1


def _images(described: Input, images: int, number: int) -> NDArray[Any]:
    """Return an input whose memory is in use, as that of a received tensor is."""
    return np.full((images, *described["shape"]), number, described["dtype"])


if __name__ == "__main__":
    main()
