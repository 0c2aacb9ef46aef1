"""The one thread that computes: takes the most urgent job whose fragment is loaded, runs it, hands it back.

The event loop and this thread share the queue under one lock, so the next job starts without a trip through
the loop. When `OUTGOING_DEPTH` results wait to be sent the thread waits too: that is the back-pressure which
bounds memory, while receiving, computing and sending still overlap.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.bus.background import now_ms
from splitplace.edge_node.catalogue import Timings
from splitplace.edge_node.queue import JobQueue, MicroBatchJob, PushOutcome
from splitplace.edge_node.runtime import FragmentError, FragmentRuntime
from splitplace.messages.application import DType
from splitplace.messages.cluster import FailureKind, FragmentTiming
from splitplace.messages.frames import Codec, FrameError, decode_tensor, encode_tensor
from splitplace.messages.limits import MAX_TENSOR_BYTES

OUTGOING_DEPTH = 4
_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Output:
    """What a fragment made of a micro-batch, encoded."""

    codec: Codec
    encoded: bytes
    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job could not be done."""

    kind: FailureKind
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """A job that went through the thread."""

    job: MicroBatchJob
    queue_ms: float
    compute_ms: float
    result: Output | Failure


@dataclass(frozen=True, slots=True)
class Load:
    """What an executor has to do and has done, at one moment."""

    queue_length: int
    queue_ms: float
    executed: int
    dropped: int
    timings: tuple[FragmentTiming, ...]


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
    ) -> None:
        """An executor that does not run yet.

        Args:
            queue: from now on touched only through this object.
            deliver: called in the thread with each result; `sent` must be called once for each.
            compress: try zstd on outputs.
            pace: share of one core to keep to: after c seconds of computing it sleeps c * (1/pace - 1).
            call_ms: what a call of a fragment costs beside its images (milliseconds).
        """
        self._queue = queue
        self._deliver = deliver
        self._compress = compress
        self._pace = pace
        self._call_ms = call_ms
        self._changed = threading.Condition()
        self._room = threading.Semaphore(OUTGOING_DEPTH)
        self._sessions: dict[str, FragmentRuntime] = {}
        self._running: MicroBatchJob | None = None
        self._executed = 0
        self._timings = Timings()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what runs and end the thread. Blocks."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._room.release()
        self._thread.join(_STOP_S)

    def push(self, job: MicroBatchJob) -> PushOutcome:
        """Let a job wait for its turn and its fragment."""
        with self._changed:
            admission = self._queue.push(job, now_ms())
            self._changed.notify()
        return admission

    def cancel(self, task: str, attempt: int) -> None:
        """Drop what waits of a task, up to and including an attempt."""
        with self._changed:
            self._queue.cancel(task, attempt)

    def is_wanted(self, task: str, attempt: int) -> bool:
        """Whether neither a cancellation nor a newer attempt of the task was seen."""
        with self._changed:
            return self._queue.is_wanted(task, attempt)

    def expire(self) -> None:
        """Drop what waits in vain."""
        with self._changed:
            self._queue.expire(now_ms())

    def take(self, fragment: str) -> tuple[MicroBatchJob, ...]:
        """Take all jobs of a fragment that will not come."""
        with self._changed:
            return self._queue.take(fragment)

    def sent(self) -> None:
        """A result has left the node (or was dropped): there is room for another."""
        self._room.release()

    def add_session(self, fragment: str, runtime: FragmentRuntime) -> None:
        """From now on jobs of this fragment can run."""
        with self._changed:
            self._sessions[fragment] = runtime
            self._changed.notify()

    def remove_session(self, fragment: str) -> FragmentRuntime | None:
        """Stop running jobs of this fragment; the session is returned, to be freed where it hurts nobody."""
        with self._changed:
            return self._sessions.pop(fragment, None)

    def has_session(self, fragment: str) -> bool:
        """Whether jobs of this fragment can run."""
        with self._changed:
            return fragment in self._sessions

    def busy(self) -> frozenset[str]:
        """Fragments that something runs on or waits for."""
        with self._changed:
            running = {self._running.route.fragment} if self._running else set()
            return self._queue.fragments | running

    def milliseconds_per_image(self, fragment: str) -> float | None:
        """What an image of this fragment has cost here, beside the cost of a call."""
        with self._changed:
            return self._timings.milliseconds_per_image(fragment)

    def load(self) -> Load:
        """What there is to do and what was done."""
        with self._changed:
            running = self._running
            return Load(
                queue_length=len(self._queue) + (running is not None),
                queue_ms=self._queue.expected_ms + (running.expected_ms if running else 0.0),
                executed=self._executed,
                dropped=self._queue.dropped,
                timings=self._timings.report(),
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
                runtime = self._sessions[job.route.fragment]
            done = self._run(job, runtime)
            del runtime
            with self._changed:
                self._running = None
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
            codec, encoded = encode_tensor(output, compress=self._compress)
        except FrameError as error:
            return Failure("input", str(error))
        except MemoryError:
            return Failure("memory", "out of memory while running")
        except FragmentError as error:
            return Failure("runtime", str(error))
        except Exception as error:  # noqa: BLE001 - the thread must outlive whatever a native library does
            return Failure("runtime", repr(error))
        return Output(codec, encoded, runtime.output.dtype, output.shape)


def _misfit(tensor: NDArray[Any], runtime: FragmentRuntime) -> str | None:
    """Why a fragment cannot be run on a batch; None if it can."""
    expected = runtime.input
    if tensor.dtype != np.dtype(expected.dtype) or tensor.shape[1:] != expected.shape:
        shape = ", ".join(map(str, expected.shape))
        return f"input is {tensor.dtype}{list(tensor.shape)}, the fragment reads {expected.dtype}[N, {shape}]"
    output_bytes = len(tensor) * runtime.output.bytes_per_image
    if output_bytes > MAX_TENSOR_BYTES:
        return f"the output would have {output_bytes} bytes (limit {MAX_TENSOR_BYTES})"
    return None
