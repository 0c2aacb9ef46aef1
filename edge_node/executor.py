"""The threads that compute: take the most urgent job whose fragment is loaded, run it, hand it back.

There is a thread for each core that the node computes on. While the queue is short, one of them runs a job
that uses all cores, and the others wait. While it is long, each runs a job of its own (`lanes.py`).

The event loop and these threads share the queue under one lock, so that the next job starts without a trip
through the loop. They wait while `OUTGOING_DEPTH` results wait to be sent. This back-pressure bounds memory,
while receiving, computing and sending still overlap.
"""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol, TypeVar

from splitplace.bus.background import now_ms
from splitplace.edge_node.call import Failure, call
from splitplace.edge_node.gains import ONE_THREAD, Gains
from splitplace.edge_node.lanes import all_cores_pay, together_gain
from splitplace.edge_node.queue import JobQueue, MicroBatchJob, PushOutcome
from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.edge_node.timings import Line, Timings
from splitplace.messages.cluster import FragmentTiming, RunningJob
from splitplace.messages.frames import EncodedBundle

T = TypeVar("T")

OUTGOING_DEPTH = 4
"""Results that wait or are computed, beside those of further threads."""
_SHORT = 16
"""With so many jobs a thread, the exact length of the queue makes no difference."""
_STOP_S = 10.0
_MOST_MS = 1e12
"""Limit of the messages."""


@dataclass(frozen=True, slots=True)
class Done:
    """A job that was run, or could not be."""

    job: MicroBatchJob
    queue_ms: float
    compute_ms: float
    result: EncodedBundle | Failure
    all_cores: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """Queue and counters of an executor at one moment."""

    queue_length: int
    queue_ms: float
    executed: int
    dropped: int
    timings: tuple[FragmentTiming, ...]
    running: RunningJob | None


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """A job that is computed."""

    job: MicroBatchJob
    runtime: FragmentRuntime
    all_cores: bool
    borrows: bool
    """Whether it borrows memory, because another job of its fragment uses what is reserved."""
    since_ms: float


class Lender(Protocol):
    """Lends memory for further jobs of a fragment that run at the same time. Called in any thread."""

    def lend(self, fragment: str) -> bool:
        """Whether there is memory for another job of a fragment; then it is taken."""
        ...

    def repay(self, fragment: str) -> None:
        """Take it back."""
        ...


class Guard(Protocol):
    """Told before a fragment runs for the first time, and after, so that a crash can be laid to it."""

    def begin(self, fragment: str) -> None:
        """Note that a fragment begins."""
        ...

    def end(self, fragment: str, *, ran: bool) -> None:
        """Note that the process has survived it; `ran`: with a result."""
        ...


class Executor:
    """Queue and sessions behind one lock, and the threads that work on them."""

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
        gains: Gains = ONE_THREAD,
        lender: Lender | None = None,
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
            gains: cores to compute on, and what is gained by that.
            lender: asked for the memory of jobs of one fragment at the same time; None: there is enough.
        """
        self._queue = queue
        self._deliver = deliver
        self.compress = compress
        """Whether outputs are compressed where that makes them smaller."""
        self._pace = pace
        self._clock = clock
        self._guard = guard
        self._proven: set[str] = set()
        """Fragments that have run since they were loaded."""
        self._changed = threading.Condition()
        self._gains = gains
        self._lender = lender
        self._room = threading.Semaphore(OUTGOING_DEPTH + gains.threads - 1)
        self._sessions: dict[str, FragmentRuntime] = {}
        self._running: list[_Run] = []
        self._executed = 0
        self._timings = Timings(call_ms)
        self._held = 0
        """Callers of `exclusively`: no job begins."""
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"inference-{number}", daemon=True)
            for number in range(gains.threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the running jobs and end the threads. Blocks."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._room.release(len(self._threads))
        for thread in self._threads:
            thread.join(_STOP_S)

    def exclusively(self, work: Callable[[], T]) -> T:
        """Do something while nothing is computed, after the running jobs. Blocks."""
        with self._changed:
            self._held += 1
            self._changed.wait_for(lambda: not self._running or self._stopping)
        try:
            return work()
        finally:
            with self._changed:
                self._held -= 1
                self._changed.notify_all()

    def measured_again(self, gains: Gains, factor: float) -> None:
        """Note that the speed of this device was measured again.

        Args:
            gains: what is gained by threads; their number stays.
            factor: time of a call in one thread now against before.
        """
        with self._changed:
            self._gains = gains
            self._timings.measured_again(factor)

    def push(self, job: MicroBatchJob) -> PushOutcome:
        """Add a job to the queue."""
        with self._changed:
            admission = self._queue.push(job, now_ms())
            self._changed.notify_all()
        return admission

    def cancel(self, task: str, attempt: int) -> None:
        """Drop waiting jobs of a task, up to and including an attempt."""
        with self._changed:
            self._queue.cancel(task, attempt)

    def cancel_first_run(self, task: str, attempt: int, micro_batches: Collection[int]) -> None:
        """Drop waiting jobs of micro-batches that run elsewhere a second time."""
        with self._changed:
            self._queue.cancel_first_run(task, attempt, frozenset(micro_batches))

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
            self._changed.notify_all()

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
            return self._queue.fragments | {run.job.route.fragment for run in self._running}

    def measured(self, fragment: str) -> Line | None:
        """Return the measured time of a call of this fragment that runs alone; None before the first."""
        with self._changed:
            return self._timings.line(fragment, self._gains)

    def load(self) -> Load:
        """Return queue and counters."""
        with self._changed:
            length = len(self._queue) + len(self._running)
            work_ms = self._queue.expected_ms + sum(run.job.expected_ms for run in self._running)
            return Load(
                queue_length=length,
                queue_ms=work_ms / together_gain(length, self._gains),
                executed=self._executed,
                dropped=self._queue.dropped,
                timings=self._timings.report(self._gains),
                running=max(self._running_jobs(), key=lambda job: job.age_ms - job.expected_ms, default=None),
            )

    def running(self) -> tuple[RunningJob, ...]:
        """Return what is computed at this moment."""
        with self._changed:
            return self._running_jobs()

    def _running_jobs(self) -> tuple[RunningJob, ...]:
        return tuple(
            RunningJob(
                fragment=run.job.route.fragment,
                age_ms=max(0.0, self._clock() - run.since_ms),
                expected_ms=min(_MOST_MS, run.job.expected_ms * self._slower(run)),
            )
            for run in self._running
        )

    def _slower(self, run: _Run) -> float:
        """Return how many times as long a run takes as on all cores."""
        return 1.0 if run.all_cores else max(1.0, self._gains.alone)

    # --- in the threads ----------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            self._room.acquire()
            with self._changed:
                run = self._next()
                if run is None:
                    return
                self._running.append(run)
            fragment = run.job.route.fragment
            is_first = fragment not in self._proven
            if is_first and self._guard is not None:
                self._guard.begin(fragment)
            done = self._run(run)
            ran = isinstance(done.result, EncodedBundle)
            if is_first and self._guard is not None:
                self._guard.end(fragment, ran=ran)
            with self._changed:
                self._running.remove(run)
                if run.borrows and self._lender is not None:
                    self._lender.repay(fragment)
                if ran:
                    self._proven.add(fragment)
                    self._executed += 1
                    self._timings.add(
                        fragment, done.job.header.images, done.compute_ms, all_cores=run.all_cores
                    )
                self._changed.notify_all()
            del run
            self._deliver(done)

    def _next(self) -> _Run | None:
        """Wait for the next job to run; None at the end."""
        while not self._stopping:
            run = None if self._held or any(run.all_cores for run in self._running) else self._first()
            if run is not None:
                return run
            self._changed.wait()
        return None

    def _first(self) -> _Run | None:
        """Take the most urgent job that can run beside the running ones."""
        running = {run.job.route.fragment for run in self._running}
        ready = set(self._sessions)
        while (job := self._queue.first(now_ms(), ready)) is not None:
            fragment = job.route.fragment
            borrows = fragment in running
            if borrows and not self._may_run_again(fragment):
                ready.remove(fragment)
                continue
            runtime = self._sessions[fragment]
            all_cores = not running and runtime.has_all_cores and self._all_cores_pay(fragment)
            self._queue.remove(job)
            return _Run(job, runtime, all_cores, borrows, self._clock())
        return None

    def _may_run_again(self, fragment: str) -> bool:
        """Whether another job of a fragment can begin while one runs. Its first run must be by itself."""
        return fragment in self._proven and (self._lender is None or self._lender.lend(fragment))

    def _all_cores_pay(self, fragment: str) -> bool:
        waiting = self._queue.count(self._sessions, _SHORT * self._gains.threads)
        return all_cores_pay(waiting, self._timings.gains(fragment, self._gains))

    def _run(self, run: _Run) -> Done:
        job = run.job
        started_ms, cpu_s = now_ms(), time.thread_time()
        result = call(job, run.runtime, all_cores=run.all_cores, compress=self.compress)
        if self._pace < 1:
            time.sleep((time.thread_time() - cpu_s) * (1 / self._pace - 1))
        queue_ms = max(0.0, started_ms - job.arrived_ms)
        return Done(job, queue_ms, now_ms() - started_ms, result, all_cores=run.all_cores)
