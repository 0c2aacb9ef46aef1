"""The CPU of a host, shared by its running fragments; exact, without time steps.

Two disciplines:

* `shared`: processor sharing, like containers on one machine. All running computations advance at the same
  rate. One number tracks them: the work that a computation present since the beginning would have received
  ("virtual time"). A computation ends when this number has grown by its work, so each arrival and departure
  costs O(log n).
* `deadline`: like a SplitPlace node, which runs one call at a time, earliest deadline first. It is modelled
  as preemptive; a real node finishes the current micro-batch first.

Work is in score-milliseconds: a host of score s does s of it per millisecond, for one computation.
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
    """The memory of a host, and the cost of exceeding it."""

    capacity_bytes: float
    swap_slowness: float
    """Factor by which access to swapped memory is slower: memory bandwidth over disk bandwidth."""

    def slowdown(self, needed_bytes: float) -> float:
        """Return the factor by which computing takes longer; 1 if everything fits.

        The share of the needed bytes that does not fit is on the disk, and accesses hit all bytes alike.
        """
        if needed_bytes <= self.capacity_bytes:
            return 1.0
        swapped = 1 - self.capacity_bytes / needed_bytes
        return 1 + swapped * (self.swap_slowness - 1)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of a running computation."""

    key: Hashable
    """Computations with the same key share the weights."""
    weight_bytes: float = 0.0
    activation_bytes: float = 0.0


@dataclass(slots=True, eq=False)
class Computation:
    """Work on a processor."""

    finish: float
    """`shared`: virtual time at which it ends; `deadline`: work that is left."""
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
    """What a processor did until `at_ms`."""

    at_ms: float = 0.0
    busy_ms: float = 0.0
    """Integral of the share of the capacity in use, over time."""
    joules: float = 0.0
    powered_ms: float = 0.0
    """Time for which the host was on."""


@dataclass(slots=True, eq=False)
class Processor:
    """The CPU of one host.

    Args:
        events: the clock.
        score: speed for a computation that runs alone.
        concurrency: number of computations that run at that speed at the same time.
        memory: memory of the host.
        watts: power as a function of the share of the capacity in use, 0 to 1.
        discipline: how computations share the CPU.
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
        """Start some work; `done` is called when it is finished."""
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
        """Abort a computation and return the work that was left; 0 if it is not running."""
        if not job.present:
            return 0.0
        self._settle()
        left = job.finish - self._virtual if self.discipline == "shared" else job.finish
        self._leave(job)
        self._plan()
        return max(0.0, left)

    def left(self, job: Computation) -> float:
        """Return the work that is left of a computation."""
        if not job.present:
            return 0.0
        self._settle()
        return max(0.0, job.finish - self._virtual if self.discipline == "shared" else job.finish)

    def set_score(self, score: float) -> None:
        """Change the speed of the host."""
        self._settle()
        self.score = score
        self._plan()

    def set_powered(self, *, powered: bool) -> None:
        """Switch the host on or off. A host that is off uses no energy; its computations must have ended."""
        self._settle()
        self.powered = powered

    def measure(self) -> Usage:
        """Return the usage until now."""
        self._settle()
        return self.usage

    @property
    def running(self) -> int:
        """Number of running computations."""
        return self._running

    @property
    def queue_work(self) -> float:
        """Work that is left of all computations."""
        self._settle()
        jobs = [job for _, _, job in self._heap if job.present]
        base = self._virtual if self.discipline == "shared" else 0.0
        return sum([job.finish for job in jobs]) - base * len(jobs)

    @property
    def utilisation(self) -> float:
        """Share of the capacity in use."""
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
            self._virtual = self._bytes = 0.0  # rounding errors must not accumulate

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
        """Compute the rate, and schedule the end of the next computation."""
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
            self._virtual = job.finish  # remove the rounding error
        self._leave(job)
        self._plan()
        job.done()
