"""Has stages prepared by a child process, one at a time. Blocks: call it in a thread."""

import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from splitplace.edge_node.graph_check import check_stage
from splitplace.edge_node.sessions import FragmentError
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.prepare import MODEL, OUT_OF_MEMORY
from splitplace.edge_node.stage.prepared import PreparedForms, key_of
from splitplace.messages.pieces import ChainStage

log = logging.getLogger(__name__)

PREPARE = (sys.executable, "-P", "-m", "splitplace.edge_node.stage.prepare")
"""Command of the child process."""
TIMEOUT_S = 600.0
_SAMPLE_S = 0.01
_MAX_REASON_BYTES = 2000
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""Weights that are not needed any more are given back at once: the peak is 1.1 times the weights, not 1.7."""


class PrepareError(FragmentError):
    """A stage that could not be prepared."""


class PrepareMemoryError(PrepareError):
    """A stage whose preparation needs more memory than it may have."""


@dataclass(frozen=True)
class Prepared:
    """A form on disk, and what it cost to make."""

    model: Path
    was_there: bool
    """Whether it was on the disk already."""
    seconds: float = 0.0
    peak_bytes: int = 0
    """Greatest private memory of the child, looked at every 10 ms; 0 if it was there already."""


class Preparer:
    """Prepares stages from the pieces in one folder."""

    def __init__(
        self,
        pieces: Path,
        forms: PreparedForms,
        *,
        max_tensor_bytes: int,
        command: tuple[str, ...] = PREPARE,
    ) -> None:
        """Name the folders.

        Args:
            pieces: Folder with graph files and weights files, each named by its hash.
            forms: Where prepared stages are kept.
            max_tensor_bytes: Limit of each tensor whose size stands in a graph, for one input.
            command: Command of the child process.
        """
        self._pieces = pieces
        self._forms = forms
        self._max_tensor_bytes = max_tensor_bytes
        self._command = command
        self._turn = threading.Lock()

    def prepare(
        self,
        stage: ChainStage,
        *,
        memory_bytes: int,
        timeout_s: float = TIMEOUT_S,
        keep: Collection[str] = (),
    ) -> Prepared:
        """Return the prepared form of a stage; make it if it is not on the disk.

        Args:
            stage: The stage; the files of its pieces are in the folder.
            memory_bytes: Private memory that the child may use beyond that of a bare process.
            timeout_s: Seconds until the child is killed.
            keep: Keys of forms that are mapped and stay on the disk.

        Raises:
            PieceError: A piece is missing or damaged, or the pieces do not fit together.
            GraphRefusedError: A tensor of the stage is too large, or it has too many nodes.
            PrepareMemoryError: It needs more memory.
            PrepareError: ONNX Runtime refuses the stage, or it takes too long.
            OSError: The disk refuses.
        """
        key = key_of(stage)
        with self._turn:
            found = self._forms.find(key)
            if found is not None:
                return Prepared(found, was_there=True)
            began = time.monotonic()
            model = joined_from(self._pieces, stage)
            check_stage(model, self._max_tensor_bytes)
            with self._forms.making(key, keep) as folder:
                peak_bytes = self._run(model, folder, memory_bytes, timeout_s)
                if not (folder / MODEL).exists():
                    raise PrepareError("the preparation wrote no model")
        found = self._forms.find(key)
        if found is None:
            raise PrepareError("the prepared stage has gone from the disk")
        seconds = time.monotonic() - began
        log.info("prepared stage %s in %.1f s, peak %.1f MiB", key[:12], seconds, peak_bytes / 2**20)
        return Prepared(found, was_there=False, seconds=seconds, peak_bytes=peak_bytes)

    def _run(self, model: bytes, folder: Path, memory_bytes: int, timeout_s: float) -> int:
        """Run the child process to its end. Return its peak of private memory, in bytes."""
        arguments = [*self._command, str(os.getpid()), str(self._pieces), str(folder), str(memory_bytes)]
        environment = {**os.environ, **_ENVIRONMENT}
        with TemporaryFile() as source, TemporaryFile() as reason:
            source.write(model)
            source.seek(0)
            with subprocess.Popen(  # noqa: S603 - our own program
                arguments, stdin=source, stdout=subprocess.DEVNULL, stderr=reason, env=environment
            ) as child:
                try:
                    peak_bytes = _watched(child, timeout_s)
                except BaseException:
                    child.kill()
                    raise
            _raise_for(child.returncode, memory_bytes, reason)
        return peak_bytes


def _watched(child: "subprocess.Popen[bytes]", timeout_s: float) -> int:
    """Wait for a process. Return its peak of private memory. Raise PrepareError after the timeout."""
    ends = time.monotonic() + timeout_s
    peak = 0
    while child.poll() is None:
        peak = max(peak, private_bytes(child.pid))
        if time.monotonic() > ends:
            raise PrepareError(f"the preparation took longer than {timeout_s:g} s")
        try:
            child.wait(_SAMPLE_S)
        except subprocess.TimeoutExpired:
            continue
    return peak


def _raise_for(code: int, memory_bytes: int, reason: IO[bytes]) -> None:
    if code == 0:
        return
    allowed = f"{memory_bytes / 2**20:.0f} MiB"
    if code == OUT_OF_MEMORY:
        raise PrepareMemoryError(f"the preparation needs more than the {allowed} that it may use")
    if code < 0:
        raise PrepareMemoryError(
            f"the preparation was ended by signal {-code}, most likely because the system has less memory "
            f"than the {allowed} that it may use"
        )
    reason.seek(0)
    words = reason.read(_MAX_REASON_BYTES).decode(errors="replace").strip()
    raise PrepareError(f"the preparation failed ({code}): {words or 'it gave no reason'}")


def private_bytes(process: int) -> int:
    """Return the private memory of a process (`RssAnon`); 0 if it has ended or the system does not tell."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0
