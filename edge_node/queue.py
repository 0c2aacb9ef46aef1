"""Micro-batches that wait for this node, earliest deadline first. Pure: time is an argument."""

import heapq
from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice

from splitplace.bus.assembly import TensorKey, key_of
from splitplace.messages.frames import GATEWAY_SENDER, Buffer, Route, TensorHeader
from splitplace.messages.limits import MEBIBYTE

MAX_JOBS = 4096
MAX_BYTES = 128 * MEBIBYTE
MAX_REMEMBERED_TASKS = 2048
_FEWEST_GONE = 64
"""Jobs that are gone and whose entries stay in any case."""


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatchJob:
    """A complete micro-batch and the fragment to run on it."""

    header: TensorHeader
    route: Route
    """The route of the header, which is never None here."""
    encoded: Buffer
    arrived_ms: float
    ends_ms: float
    """When it expires, on the clock of `arrived_ms`."""
    expected_ms: float
    """Expected computing time."""

    @property
    def key(self) -> TensorKey:
        """Task, attempt, stage and micro-batch."""
        return key_of(self.header)


class PushOutcome(Enum):
    """Outcome of `JobQueue.push`."""

    ACCEPTED = auto()
    DUPLICATE = auto()
    """The same micro-batch waits already."""
    OUTDATED = auto()
    """Its task was cancelled, or a newer attempt of it was seen."""
    EXPIRED = auto()
    FULL = auto()


@dataclass(slots=True)
class _Group:
    """The micro-batches of one stage of one attempt. They share a deadline, so that they stay in order."""

    ends_ms: float
    sequence: int
    waiting: int = 0


@dataclass(order=True, slots=True)
class _Entry:
    ends_ms: float
    sequence: int
    micro_batch: int
    key: TensorKey = field(compare=False)
    """Not the job: the entry may outlive it, and must not keep its tensor."""


class JobQueue:
    """Jobs by fragment, each fragment's earliest deadline first; bounded in number and bytes.

    Micro-batches of a stage stay in their order: the deadline of the first to arrive counts for all. The
    others' deadlines differ only by delays on the network.
    """

    def __init__(
        self,
        *,
        max_jobs: int = MAX_JOBS,
        max_bytes: int = MAX_BYTES,
        max_remembered_tasks: int = MAX_REMEMBERED_TASKS,
    ) -> None:
        """An empty queue.

        Args:
            max_jobs: jobs that may wait.
            max_bytes: encoded bytes of all waiting jobs.
            max_remembered_tasks: tasks whose newest or cancelled attempt is remembered.
        """
        self.dropped = 0
        """Jobs that expired, were cancelled or outdated before they ran."""
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._max_remembered = max_remembered_tasks
        self._jobs: dict[TensorKey, MicroBatchJob] = {}
        self._heaps: dict[str, list[_Entry]] = {}
        self._groups: dict[tuple[str, int, str], _Group] = {}
        self._oldest_wanted: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0
        self._sequence = 0
        self._entries_gone = 0
        """At most so many entries in heaps are of jobs that are gone."""

    def __len__(self) -> int:
        """Number of waiting jobs."""
        return len(self._jobs)

    @property
    def waiting_bytes(self) -> int:
        """Encoded bytes of all waiting jobs."""
        return self._bytes

    @property
    def expected_ms(self) -> float:
        """Expected computing time of all waiting jobs."""
        return sum(job.expected_ms for job in self._jobs.values())

    @property
    def fragments(self) -> frozenset[str]:
        """Fragments with waiting jobs."""
        return frozenset(job.route.fragment for job in self._jobs.values())

    def push(self, job: MicroBatchJob, now_ms: float) -> PushOutcome:
        """Add a job, unless it is no longer wanted or there is no room."""
        task, attempt = job.header.task, job.header.attempt
        if attempt < self._oldest_wanted.get(task, 0):
            self.dropped += 1
            return PushOutcome.OUTDATED
        if now_ms >= job.ends_ms:
            self.dropped += 1
            return PushOutcome.EXPIRED
        if job.key in self._jobs:
            return PushOutcome.DUPLICATE
        if job.header.sender == GATEWAY_SENDER:  # a node may claim any attempt
            self._want_from(task, attempt)
        if len(self) >= self._max_jobs or self._bytes + len(job.encoded) > self._max_bytes:
            self.expire(now_ms)
        if len(self) >= self._max_jobs or self._bytes + len(job.encoded) > self._max_bytes:
            return PushOutcome.FULL
        self._add(job)
        return PushOutcome.ACCEPTED

    def pop(self, now_ms: float, ready: Container[str]) -> MicroBatchJob | None:
        """Take the first job; `first` says which that is."""
        job = self.first(now_ms, ready)
        if job is not None:
            self._forget(job)
        return job

    def first(self, now_ms: float, ready: Container[str]) -> MicroBatchJob | None:
        """Return the job with the earliest deadline of those whose fragment is ready; drop expired ones."""
        heads = [
            head
            for fragment in list(self._heaps)
            if fragment in ready and (head := self._head(fragment, now_ms)) is not None
        ]
        if not heads:
            return None
        return self._jobs[min(heads).key]

    def remove(self, job: MicroBatchJob) -> None:
        """Take a waiting job."""
        self._forget(job)

    def count(self, ready: Container[str], most: int) -> int:
        """Return how many waiting jobs have a fragment that is ready, up to `most`."""
        found = (job for job in self._jobs.values() if job.route.fragment in ready)
        return sum(1 for _ in islice(found, most))

    def cancel(self, task: str, attempt: int) -> int:
        """Drop a task's jobs up to and including an attempt, also later ones. Returns their number."""
        return self._want_from(task, attempt + 1)

    def cancel_first_run(self, task: str, attempt: int, micro_batches: Container[int]) -> int:
        """Drop micro-batches of an attempt that run elsewhere a second time. Returns the number of jobs."""
        return self._drop(
            [
                job
                for job in self._jobs.values()
                if (job.key.task, job.key.attempt) == (task, attempt)
                and job.key.micro_batch in micro_batches
                and not job.key.second_run
            ]
        )

    def expire(self, now_ms: float) -> int:
        """Drop expired jobs. Returns their number."""
        gone = [job for job in self._jobs.values() if now_ms >= job.ends_ms]
        return self._drop(gone)

    def take(self, fragment: str) -> tuple[MicroBatchJob, ...]:
        """Take all jobs of a fragment that cannot be loaded."""
        taken = tuple(job for job in self._jobs.values() if job.route.fragment == fragment)
        for job in taken:
            self._forget(job)
        return taken

    def is_wanted(self, task: str, attempt: int) -> bool:
        """Whether neither a cancellation nor a newer attempt of the task was seen."""
        return attempt >= self._oldest_wanted.get(task, 0)

    def _want_from(self, task: str, attempt: int) -> int:
        known = self._oldest_wanted.get(task, 0)
        self._oldest_wanted[task] = max(known, attempt)
        self._oldest_wanted.move_to_end(task)
        if len(self._oldest_wanted) > self._max_remembered:
            self._oldest_wanted.popitem(last=False)
        if attempt <= known:
            return 0
        return self._drop(
            [job for job in self._jobs.values() if job.key.task == task and job.key.attempt < attempt]
        )

    def _drop(self, jobs: list[MicroBatchJob]) -> int:
        for job in jobs:
            self._forget(job)
        self.dropped += len(jobs)
        return len(jobs)

    def _add(self, job: MicroBatchJob) -> None:
        key = job.key
        group = self._groups.get(key[:3])
        if group is None:
            self._sequence += 1
            group = self._groups[key[:3]] = _Group(job.ends_ms, self._sequence)
        group.waiting += 1
        self._jobs[key] = job
        self._bytes += len(job.encoded)
        entry = _Entry(group.ends_ms, group.sequence, key.micro_batch, key)
        heapq.heappush(self._heaps.setdefault(job.route.fragment, []), entry)

    def _forget(self, job: MicroBatchJob) -> None:
        """Forget a job. The heap still holds it and skips it when its turn comes, or drops it with others."""
        key = job.key
        del self._jobs[key]
        self._bytes -= len(job.encoded)
        group = self._groups[key[:3]]
        group.waiting -= 1
        if not group.waiting:
            del self._groups[key[:3]]
        self._entries_gone += 1
        if self._entries_gone > len(self._jobs) + _FEWEST_GONE:
            self._rebuild_heaps()

    def _rebuild_heaps(self) -> None:
        """Drop the entries of jobs that are gone: their fragment may never be ready again."""
        self._entries_gone = 0
        for fragment, heap in list(self._heaps.items()):
            heap[:] = [entry for entry in heap if self._is_current(entry)]
            heapq.heapify(heap)
            if not heap:
                del self._heaps[fragment]

    def _is_current(self, entry: _Entry) -> bool:
        """Whether an entry's job waits. One that came again after it ran belongs to a later group."""
        return entry.key in self._jobs and self._groups[entry.key[:3]].sequence == entry.sequence

    def _head(self, fragment: str, now_ms: float) -> _Entry | None:
        heap = self._heaps.get(fragment, [])
        while heap:
            if not self._is_current(heap[0]):
                heapq.heappop(heap)
            elif now_ms < (job := self._jobs[heap[0].key]).ends_ms:
                return heap[0]
            else:
                self._drop([job])
        self._heaps.pop(fragment, None)
        return None
