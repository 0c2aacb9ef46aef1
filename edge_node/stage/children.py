"""Runs the child processes that prepare and measure stages, one at a time, and watches their memory.

The kernel ends a child when the *thread* that started it ends. So they are started by one thread that lives
as long as the node, not by short-lived ones.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, TypeVar

from splitplace.edge_node.available_memory import CHILD_BYTES
from splitplace.edge_node.sessions import FragmentError
from splitplace.edge_node.stage.child import OUT_OF_MEMORY
from splitplace.edge_node.stage.measure import private_bytes

T = TypeVar("T")

Command = tuple[str, ...]
"""Program and first arguments of a child process."""

_SAMPLE_S = 0.01
_MAX_REASON_BYTES = 2000
_MAX_ANSWER_BYTES = 1 << 20
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""Weights that are not needed any more are given back at once: the peak is 1.1 times the weights, not 1.7."""


def module(name: str) -> Command:
    """Return the command of a module of ours."""
    return (sys.executable, "-P", "-m", f"splitplace.edge_node.stage.{name}")


class PrepareError(FragmentError):
    """A stage that could not be prepared."""


class PrepareMemoryError(PrepareError):
    """A stage whose preparation needs more memory than it may have."""


class PrepareKilledError(PrepareError):
    """A stage whose preparation was killed, by the kernel or after its timeout."""


class WroteTooMuchError(PrepareError):
    """A child that was about to write more than it may."""


@dataclass(frozen=True)
class Ended:
    """A child that ended well."""

    answer: bytes
    """What it wrote to standard output."""
    peak_bytes: int
    """Greatest private memory, looked at every 10 ms."""


class Children:
    """The thread that starts them."""

    def __init__(self) -> None:
        """Start no child yet."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
        self._closing = threading.Event()

    def close(self) -> None:
        """End the child that runs, and start no other. Blocks for a moment."""
        self._closing.set()
        self._thread.shutdown(cancel_futures=True)

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Do some work in the thread, after what was submitted before. Raise PrepareError once closed."""
        try:
            return self._thread.submit(work)
        except RuntimeError as error:
            raise PrepareError("the node is stopping") from error

    def run(
        self,
        command: Command,
        arguments: Sequence[str],
        standard_input: bytes,
        *,
        memory_bytes: int,
        mapped_bytes: int,
        timeout_s: float,
    ) -> Ended:
        """Run a child to its end. Only in the thread.

        Args:
            command: The program. It is told this process and its limit first, then the other arguments.
            arguments: Those others.
            standard_input: What it reads.
            memory_bytes: Private memory that it may use beyond that of a bare process.
            mapped_bytes: Size of the weights that it maps. The kernel's limit counts them, although they take
                no private memory; so what is private is watched, too.
            timeout_s: Seconds until it is killed.

        Raises:
            PrepareMemoryError: It needs more memory.
            PrepareKilledError: It was killed, by a signal or after the timeout.
            WroteTooMuchError: It wrote more than it may.
            PrepareError: It failed, or this is closed.
        """
        words = [*command, str(os.getpid()), str(memory_bytes + mapped_bytes), *arguments]
        environment = {**os.environ, **_ENVIRONMENT}
        with TemporaryFile() as source, TemporaryFile() as answer, TemporaryFile() as reason:
            source.write(standard_input)
            source.seek(0)
            with subprocess.Popen(  # noqa: S603 - our own program
                words, stdin=source, stdout=answer, stderr=reason, env=environment
            ) as child:
                try:
                    peak_bytes = self._watched(child, memory_bytes, timeout_s)
                except BaseException:
                    child.kill()
                    raise
            _raise_for(child.returncode, memory_bytes, reason)
            answer.seek(0)
            return Ended(answer.read(_MAX_ANSWER_BYTES), peak_bytes)

    def _watched(self, child: "subprocess.Popen[bytes]", memory_bytes: int, timeout_s: float) -> int:
        """Wait for a child. Return its peak of private memory."""
        ends = time.monotonic() + timeout_s
        peak = 0
        while child.poll() is None:
            peak = max(peak, private_bytes(child.pid))
            if peak > CHILD_BYTES + memory_bytes:
                raise PrepareMemoryError(_needs_more(memory_bytes))
            if self._closing.is_set():
                raise PrepareError("the node is stopping")
            if time.monotonic() > ends:
                raise PrepareKilledError(f"the preparation took longer than {timeout_s:g} s")
            try:
                child.wait(_SAMPLE_S)
            except subprocess.TimeoutExpired:
                continue
        return peak


def _needs_more(memory_bytes: int) -> str:
    return f"the preparation needs more than the {memory_bytes / 2**20:.0f} MiB that it may use"


def _raise_for(code: int, memory_bytes: int, reason: IO[bytes]) -> None:
    if code == 0:
        return
    allowed = f"{memory_bytes / 2**20:.0f} MiB"
    if code == OUT_OF_MEMORY:
        raise PrepareMemoryError(_needs_more(memory_bytes))
    if code == -signal.SIGXFSZ:
        raise WroteTooMuchError("the preparation writes more than the disk has room for")
    if code < 0:
        raise PrepareKilledError(
            f"the preparation was ended by signal {-code}, most likely because the system has less memory "
            f"than the {allowed} that it may use"
        )
    reason.seek(0)
    words = reason.read(_MAX_REASON_BYTES).decode(errors="replace").strip()
    raise PrepareError(f"the preparation failed ({code}): {words or 'it gave no reason'}")
