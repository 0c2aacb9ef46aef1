"""The thread that computes: takes the most urgent job whose fragment is loaded, runs it, hands it back.

The event loop and this thread share the queue under one lock, so that the next job starts without a trip
through the loop. The thread waits while `OUTGOING_DEPTH` results wait to be sent. This back-pressure bounds
memory, while receiving, computing and sending still overlap.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from splitplace.bus.background import now_ms
from splitplace.edge_node.catalogue import Timings
from splitplace.edge_node.queue import JobQueue, MicroBatchJob, PushOutcome
from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.edge_node.sessions import FragmentError
from splitplace.messages.application import DType
from splitplace.messages.cluster import FailureKind, FragmentTiming, RunningJob
from splitplace.messages.frames import Codec, FrameError, decode_tensor, encode_tensor
from splitplace.messages.limits import MAX_TENSOR_BYTES

OUTGOING_DEPTH = 4
_STOP_S = 10.0
_MOST_MS = 1e12
"""Limit of the messages."""


@dataclass(frozen=True, slots=True)
class Output:
    """The encoded output of a fragment for a micro-batch."""

    codec: Codec
    encoded: bytes
    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason why a job could not be done."""

    kind: FailureKind
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """A job that was run, or could not be."""

    job: MicroBatchJob
    queue_ms: float
    compute_ms: float
    result: Output | Failure


@dataclass(frozen=True, slots=True)
class Load:
    """Queue and counters of an executor at one moment."""

    queue_length: int
    queue_ms: float
    executed: int
    dropped: int
    timings: tuple[FragmentTiming, ...]
    running: RunningJob | None


class Guard(Protocol):
    """Told before a fragment runs for the first time, and after, so that a crash can be laid to it."""

    def begin(self, fragment: str) -> None:
        """Note that a fragment begins."""
        ...

    def end(self, fragment: str, *, ran: bool) -> None:
        """Note that the process has survived it; `ran`: with a result."""
        ...


class Executor:
    """Queue and sessions behind one lock, and the thread that works on them."""

    def __init__(
        self,
        queue: JobQueue,
        deliver: Callable[[Done], None],
        *,
        compress: bool = False,
        pace: float = 1.0,
        call_ms: Callable[[str], float] = lambda _: 0.0,
        clock: Callable[[], float] = now_ms,
        guard: Guard | None = None,
    ) -> None:
        """An executor that does not run yet.

        Args:
            queue: from now on touched only through this object.
            deliver: called in the thread with each result; call `sent` once for each.
            compress: try zstd on outputs.
            pace: share of one core to keep to: after c seconds of computing it sleeps c * (1/pace - 1).
            call_ms: fixed time of a call of a fragment, by hash.
            clock: measures the age of the running job, in ms.
            guard: told of the first run of each fragment.
        """
        self._queue = queue
        self._deliver = deliver
        self.compress = compress
        """Whether outputs are compressed where that makes them smaller."""
        self._pace = pace
        self._call_ms = call_ms
        self._clock = clock
        self._guard = guard
        self._proven: set[str] = set()
        """Fragments that have run since they were loaded."""
        self._changed = threading.Condition()
        self._room = threading.Semaphore(OUTGOING_DEPTH)
        self._sessions: dict[str, FragmentRuntime] = {}
        self._running: MicroBatchJob | None = None
        self._running_since_ms = 0.0
        self._executed = 0
        self._timings = Timings()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the running job and end the thread. Blocks."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._room.release()
        self._thread.join(_STOP_S)

    def push(self, job: MicroBatchJob) -> PushOutcome:
        """Add a job to the queue."""
        with self._changed:
            admission = self._queue.push(job, now_ms())
            self._changed.notify()
        return admission

    def cancel(self, task: str, attempt: int) -> None:
        """Drop waiting jobs of a task, up to and including an attempt."""
        with self._changed:
            self._queue.cancel(task, attempt)

    def is_wanted(self, task: str, attempt: int) -> bool:
        """Whether neither a cancellation nor a newer attempt of the task was seen."""
        with self._changed:
            return self._queue.is_wanted(task, attempt)

    def expire(self) -> None:
        """Drop expired jobs."""
        with self._changed:
            self._queue.expire(now_ms())

    def take(self, fragment: str) -> tuple[MicroBatchJob, ...]:
        """Take all jobs of a fragment that cannot be loaded."""
        with self._changed:
            return self._queue.take(fragment)

    def sent(self) -> None:
        """Make room for another result: one was sent or dropped."""
        self._room.release()

    def add_session(self, fragment: str, runtime: FragmentRuntime) -> None:
        """Let jobs of this fragment run."""
        with self._changed:
            self._sessions[fragment] = runtime
            self._proven.discard(fragment)
            self._changed.notify()

    def remove_session(self, fragment: str) -> FragmentRuntime | None:
        """Stop running jobs of this fragment. Returns the session, so that the caller frees it."""
        with self._changed:
            return self._sessions.pop(fragment, None)

    def has_session(self, fragment: str) -> bool:
        """Whether jobs of this fragment can run."""
        with self._changed:
            return fragment in self._sessions

    def busy(self) -> frozenset[str]:
        """Return fragments with running or waiting jobs."""
        with self._changed:
            running = {self._running.route.fragment} if self._running else set()
            return self._queue.fragments | running

    def milliseconds_per_image(self, fragment: str) -> float | None:
        """Measured time per image of this fragment, without the fixed time of a call; None before."""
        with self._changed:
            return self._timings.milliseconds_per_image(fragment)

    def load(self) -> Load:
        """Return queue and counters."""
        with self._changed:
            running = self._running
            return Load(
                queue_length=len(self._queue) + (running is not None),
                queue_ms=self._queue.expected_ms + (running.expected_ms if running else 0.0),
                executed=self._executed,
                dropped=self._queue.dropped,
                timings=self._timings.report(),
                running=self._running_job(),
            )

    def running(self) -> RunningJob | None:
        """Return what is computed at this moment."""
        with self._changed:
            return self._running_job()

    def _running_job(self) -> RunningJob | None:
        if self._running is None:
            return None
        return RunningJob(
            fragment=self._running.route.fragment,
            age_ms=max(0.0, self._clock() - self._running_since_ms),
            expected_ms=min(_MOST_MS, self._running.expected_ms),
        )

    # --- in the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            self._room.acquire()
            with self._changed:
                job = self._next()
                if job is None:
                    return
                self._running = job
                self._running_since_ms = self._clock()
                runtime = self._sessions[job.route.fragment]
            is_first = job.route.fragment not in self._proven
            if is_first and self._guard is not None:
                self._guard.begin(job.route.fragment)
            done = self._run(job, runtime)
            if is_first and self._guard is not None:
                self._guard.end(job.route.fragment, ran=isinstance(done.result, Output))
            del runtime
            with self._changed:
                self._running = None
                if isinstance(done.result, Output):
                    self._proven.add(job.route.fragment)
                self._note(done)
            self._deliver(done)

    def _next(self) -> MicroBatchJob | None:
        while not self._stopping:
            job = self._queue.pop(now_ms(), self._sessions)
            if job is not None:
                return job
            self._changed.wait()
        return None

    def _note(self, done: Done) -> None:
        if isinstance(done.result, Output):
            self._executed += 1
            fragment, images = done.job.route.fragment, done.job.header.shape[0]
            self._timings.add(fragment, images, done.compute_ms - self._call_ms(fragment))

    def _run(self, job: MicroBatchJob, runtime: FragmentRuntime) -> Done:
        started_ms, cpu_s = now_ms(), time.thread_time()
        result = self._result(job, runtime)
        if self._pace < 1:
            time.sleep((time.thread_time() - cpu_s) * (1 / self._pace - 1))
        return Done(job, max(0.0, started_ms - job.arrived_ms), now_ms() - started_ms, result)

    def _result(self, job: MicroBatchJob, runtime: FragmentRuntime) -> Output | Failure:
        try:
            tensor = decode_tensor(job.header, job.encoded)
            problem = _misfit(tensor, runtime)
            if problem:
                return Failure("input", problem)
            output = runtime.run(tensor)
            codec, encoded = encode_tensor(output, compress=self.compress)
        except FrameError as error:
            return Failure("input", str(error))
        except MemoryError:
            return Failure("memory", "out of memory while running")
        except FragmentError as error:
            return Failure("runtime", str(error))
        except Exception as error:  # noqa: BLE001 - no error of a native library may end the thread
            return Failure("runtime", repr(error))
        return Output(codec, encoded, runtime.output.dtype, output.shape)


def _misfit(tensor: NDArray[Any], runtime: FragmentRuntime) -> str | None:
    """Return why a fragment cannot run on a batch; None if it can."""
    expected = runtime.input
    if tensor.dtype != np.dtype(expected.dtype) or tensor.shape[1:] != expected.shape:
        shape = ", ".join(map(str, expected.shape))
        return f"input is {tensor.dtype}{list(tensor.shape)}, the fragment reads {expected.dtype}[N, {shape}]"
    output_bytes = len(tensor) * runtime.output.bytes_per_image
    if output_bytes > MAX_TENSOR_BYTES:
        return f"the output would have {output_bytes} bytes (limit {MAX_TENSOR_BYTES})"
    return None
