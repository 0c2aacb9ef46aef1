"""The CPU of a host, shared by the fragments that run on it; exact, without time steps.

Two disciplines:

* `shared`: processor sharing, as containers on one machine. All running jobs advance at the same rate. Kept
  by one number, the work that a job present since the beginning would have received ("virtual time"); a job
  ends when that number has grown by its work. So each arrival and departure costs O(log n).
* `deadline`: as a SplitPlace node, which does one call at a time, earliest deadline first. Modelled as
  preemptive; a node really finishes the micro-batch at hand first.

Work is in score-milliseconds: a host of score s does s of it in a millisecond, for one job.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import Literal

from splitplace.simulator.events import Event, EventQueue

Discipline = Literal["shared", "deadline"]


@dataclass(frozen=True, slots=True)
class HostMemory:
    """What a host can hold, and what it costs to need more."""

    capacity_bytes: float
    swap_slowness: float
    """How many times longer an access to swapped memory takes: bandwidth of memory over that of the disk."""

    def slowdown(self, needed_bytes: float) -> float:
        """By what computing takes longer: 1 where all fits.

        Of `needed` bytes the share that does not fit is on the disk, and accesses fall on all bytes alike.
        """
        if needed_bytes <= self.capacity_bytes:
            return 1.0
        swapped = 1 - self.capacity_bytes / needed_bytes
        return 1 + swapped * (self.swap_slowness - 1)


@dataclass(frozen=True, slots=True)
class Footprint:
    """HostMemory of a running job."""

    key: Hashable
    """Jobs with the same key share the weights."""
    weight_bytes: float = 0.0
    activation_bytes: float = 0.0


@dataclass(slots=True, eq=False)
class Computation:
    """A piece of work on a processor."""

    finish: float
    """`shared`: the processor's virtual time at which it ends; `deadline`: the work that is left."""
    due_ms: float
    order: int
    footprint: Footprint
    done: Callable[[], None]
    present: bool = True

    def __lt__(self, other: "Computation") -> bool:
        """In the order of ending (`shared`); in that of serving (`deadline`), `finish` is not asked."""
        return (self.finish, self.order) < (other.finish, other.order)


@dataclass(slots=True)
class Usage:
    """What a processor did, up to `at_ms`."""

    at_ms: float = 0.0
    busy_ms: float = 0.0
    """Integral of the share of its capacity that was in use."""
    joules: float = 0.0
    powered_ms: float = 0.0
    """How long the host was on."""


@dataclass(slots=True, eq=False)
class Processor:
    """The CPU of one host.

    Args:
        events: the clock.
        score: speed for one job alone.
        concurrency: how many jobs it can run at that speed at the same time.
        memory: of the host.
        watts: power at a share of its capacity in use, from 0 to 1.
        discipline: who gets the CPU.
    """

    events: EventQueue
    score: float
    concurrency: float
    memory: HostMemory
    watts: Callable[[float], float]
    discipline: Discipline = "shared"
    powered: bool = True
    usage: Usage = field(default_factory=Usage)
    _virtual: float = 0.0
    _rate: float = 0.0
    _running: int = 0
    _heap: list[tuple[float, int, Computation]] = field(default_factory=list)
    _holders: dict[Hashable, int] = field(default_factory=dict)
    _bytes: float = 0.0
    _order: int = 0
    _next: Event | None = None

    def start(
        self,
        work: float,
        done: Callable[[], None],
        *,
        due_ms: float = 0.0,
        footprint: Footprint | None = None,
    ) -> Computation:
        """Begin some work; `done` is called when it is through."""
        self._settle()
        self._order += 1
        shared = self.discipline == "shared"
        finish = self._virtual + work if shared else work
        job = Computation(finish, due_ms, self._order, footprint or Footprint(self._order), done)
        heappush(self._heap, (finish if shared else due_ms, job.order, job))
        self._running += 1
        self._hold(job.footprint, 1)
        self._plan()
        return job

    def stop(self, job: Computation) -> float:
        """Take a job off, and return the work that was left of it; 0 where it is not there."""
        if not job.present:
            return 0.0
        self._settle()
        left = job.finish - self._virtual if self.discipline == "shared" else job.finish
        self._leave(job)
        self._plan()
        return max(0.0, left)

    def left(self, job: Computation) -> float:
        """Work that is left of a job."""
        if not job.present:
            return 0.0
        self._settle()
        return max(0.0, job.finish - self._virtual if self.discipline == "shared" else job.finish)

    def set_score(self, score: float) -> None:
        """The host is faster or slower from now on."""
        self._settle()
        self.score = score
        self._plan()

    def set_powered(self, *, powered: bool) -> None:
        """A host that is off uses no energy. Its jobs must have been stopped."""
        self._settle()
        self.powered = powered

    def measure(self) -> Usage:
        """What it did until now."""
        self._settle()
        return self.usage

    @property
    def running(self) -> int:
        """Jobs on it."""
        return self._running

    @property
    def queue_work(self) -> float:
        """Work that is left of all jobs."""
        self._settle()
        jobs = [job for _, _, job in self._heap if job.present]
        base = self._virtual if self.discipline == "shared" else 0.0
        return sum([job.finish for job in jobs]) - base * len(jobs)

    @property
    def utilisation(self) -> float:
        """Share of its capacity in use."""
        return min(1.0, self._running / self.concurrency)

    # --- inside ----------------------------------------------------------------------------------------

    def _hold(self, footprint: Footprint, change: int) -> None:
        holders = self._holders.get(footprint.key, 0) + change
        if holders:
            self._holders[footprint.key] = holders
        else:
            del self._holders[footprint.key]
        self._bytes += change * footprint.activation_bytes
        if holders == (1 if change > 0 else 0):
            self._bytes += change * footprint.weight_bytes

    def _leave(self, job: Computation) -> None:
        job.present = False
        self._running -= 1
        self._hold(job.footprint, -1)
        if not self._running:
            self._heap.clear()
            self._virtual = self._bytes = 0.0  # rounding errors do not pile up

    def _settle(self) -> None:
        """Account for the time since the last change."""
        elapsed_ms = self.events.now_ms - self.usage.at_ms
        if elapsed_ms <= 0:
            return
        self.usage.at_ms = self.events.now_ms
        used = self.utilisation
        self.usage.busy_ms += used * elapsed_ms
        if self.powered:
            self.usage.powered_ms += elapsed_ms
            self.usage.joules += self.watts(used) * elapsed_ms / 1000
        if not self._running:
            return
        if self.discipline == "shared":
            self._virtual += self._rate * elapsed_ms
        else:
            head = self._head()
            head.finish = max(0.0, head.finish - self._rate * elapsed_ms)

    def _plan(self) -> None:
        """Work out the rate and when the next job ends."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if not self._running:
            return
        head = self._head()
        if self.discipline == "shared":
            needed = self._bytes
            self._rate = self.score * min(1.0, self.concurrency / self._running)
            left = head.finish - self._virtual
        else:
            needed = head.footprint.weight_bytes + head.footprint.activation_bytes
            self._rate = self.score
            left = head.finish
        self._rate /= self.memory.slowdown(needed)
        if self._rate > 0:
            self._next = self.events.after(max(0.0, left) / self._rate, partial(self._finish, head))

    def _head(self) -> Computation:
        while not self._heap[0][2].present:
            heappop(self._heap)
        return self._heap[0][2]

    def _finish(self, job: Computation) -> None:
        self._next = None
        self._settle()
        if self.discipline == "shared":
            self._virtual = job.finish  # what rounding left over
        self._leave(job)
        self._plan()
        job.done()
