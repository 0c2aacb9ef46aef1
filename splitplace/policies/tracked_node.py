"""A live node as a decider knows it: its last report, and what was placed on it since."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, nan
from typing import NamedTuple

from splitplace.messages.application import Fragment
from splitplace.messages.cluster import FragmentTiming, NodeState, PreparedFragment
from splitplace.policies import cost, memory
from splitplace.policies.earlier_work import EarlierWork
from splitplace.policies.link_backlog import LinkBacklog
from splitplace.policies.stage_work import StageWork

_MAX_SPEEDS = 4096
"""Entries that a node keeps of what its calls take."""


class OwnTimes(NamedTuple):
    """What a node has measured of a fragment, in ms; NaN before."""

    call_ms: float
    image_ms: float
    together: float
    """Speed of calls in all threads at once, against one at a time."""


@dataclass(slots=True)
class RemainingLoad:
    """What one task still needs of one node."""

    work_ms: float
    due_ms: float
    """Its place in the order of work: its deadline, or before all deadlines where tasks take no turns."""
    fragments: list[Fragment]


@dataclass(slots=True)
class TrackedNode:
    """A live node: its last report, and what was placed on it since."""

    state: NodeState
    heartbeat_ms: float
    """When it sent the report in `state`."""
    loaded: frozenset[str]
    prepared: Mapping[str, PreparedFragment]
    """What it can map without preparing it first, by hash."""
    timings: Mapping[str, FragmentTiming]
    """By fragment."""
    stored: frozenset[str]
    """Fragments whose files it has, without those that are loaded."""
    busy_until_ms: float
    """When all its work is expected to be done."""
    unexplained_until_ms: float
    """When the work it reported beyond the ledger would be done by itself: older or slower work."""
    trusted_from_ms: float
    """Reports of queues from before this are outdated: the ledger became empty then."""
    link: LinkBacklog
    """What its link has to bring for the tasks in `shares`."""
    exclusive: bool = False
    """Whether each task has fragments of its own here."""
    arriving: dict[str, float] = field(default_factory=dict)
    """Fragments it was told to load, with the time when they are expected to be ready."""
    shares: dict[str, RemainingLoad] = field(default_factory=dict)
    """By task."""
    earlier: EarlierWork = field(default_factory=EarlierWork)
    """The work in `shares`, by deadline."""
    users: dict[str, int] = field(default_factory=dict)
    """Number of outstanding stages that need a fragment, by hash."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Memory of each fragment in `users`, as it was reckoned for the first of them."""
    reserved_bytes: int = 0
    """Memory of the fragments in `users`: once each, or once per user on an exclusive node."""
    _speeds: dict[tuple[str, float, float, float, int], tuple[float, float]] = field(default_factory=dict)
    """What `speed` has returned since the last report of other times."""

    def report(self, state: NodeState, now_ms: float) -> None:
        """Take over its newest heartbeat."""
        before = self.state
        if state is not before:
            self.state = state
            if state.loaded is not before.loaded and state.loaded != before.loaded:
                self.loaded = frozenset(state.loaded)
            if state.prepared is not before.prepared and state.prepared != before.prepared:
                self.prepared = _prepared(state)
            if state.stored is not before.stored and state.stored != before.stored:
                self.stored = frozenset(state.stored)
            if state.timings is not before.timings and state.timings != before.timings:
                self.timings = _timings(state)
                self._speeds.clear()
            if (state.score, state.threads, state.together) != (
                before.score,
                before.threads,
                before.together,
            ):
                self._speeds.clear()
            self.link.change(_byte_ms(state), now_ms)
        self.heartbeat_ms = now_ms - state.silent_ms
        if self.arriving or state.loads:
            self._report_arriving(state)
        if state.queue_ms and self.heartbeat_ms >= self.trusted_from_ms:
            known_ms = max(now_ms, self.busy_until_ms)
            excess_ms = self.heartbeat_ms + state.queue_ms - known_ms
            if excess_ms > 0:
                self.busy_until_ms = known_ms + excess_ms
                self.unexplained_until_ms = max(now_ms, self.unexplained_until_ms) + excess_ms

    def _report_arriving(self, state: NodeState) -> None:
        """Keep what is still expected, and take over what the node expects itself."""
        self.arriving = {
            sha256: ready_ms
            for sha256, ready_ms in self.arriving.items()
            if ready_ms >= self.heartbeat_ms and sha256 not in self.loaded
        }
        for load in state.loads:
            if load.left_ms is not None:
                self.arriving[load.fragment] = self.heartbeat_ms + load.left_ms

    def own_bytes(self, sha256: str) -> int | None:
        """Return the memory that the node has measured for a fragment; None if it has not."""
        found = self.prepared.get(sha256)
        return None if found is None else found.private_bytes

    def needed_bytes(self, fragment: Fragment) -> float:
        """Return the memory that must be free for a fragment; infinite if the node cannot prepare it."""
        return memory.needed_bytes(
            fragment,
            budget_bytes=self.state.memory_budget_bytes,
            own_bytes=self.own_bytes(fragment.sha256),
        )

    def own_times(self, sha256: str) -> OwnTimes:
        """Return what the node has measured of a fragment."""
        timing = self.timings.get(sha256)
        if timing is None:
            return OwnTimes(nan, nan, self.state.together)
        call_ms = nan if timing.milliseconds_per_call is None else timing.milliseconds_per_call
        return OwnTimes(call_ms, timing.milliseconds_per_image, timing.together)

    def speed(self, fragment: Fragment, reference_score: float, calls: int) -> tuple[float, float]:
        """Return the time of a call and that of an image in it: `ClusterView.speed`."""
        call_ms, image_ms = fragment.milliseconds_per_call, fragment.milliseconds_per_image
        key = (fragment.sha256, call_ms, image_ms, reference_score, calls)
        found = self._speeds.get(key)
        if found is None:
            slow = cost.slowness(reference_score, self.state.score)
            own = self.own_times(fragment.sha256)
            gain = cost.together_gain(calls, float(self.state.threads), own.together)
            if len(self._speeds) >= _MAX_SPEEDS:
                self._speeds.clear()
            found = self._speeds[key] = (
                cost.call_ms(call_ms, slow, own.call_ms) / gain,
                cost.image_ms(image_ms, slow, own.image_ms) / gain,
            )
        return found

    def load_ms(self, file_bytes: float) -> float:
        """Return what loading a fragment of this size takes once its files are there; NaN if not known."""
        fixed_ms = nan if self.state.load_ms is None else self.state.load_ms
        return fixed_ms + self.state.load_ms_per_megabyte * file_bytes / 1e6

    def occupied_ms(self, work: StageWork) -> float:
        """Return for how long work keeps the node, which runs tasks at once where they fill its cores."""
        if work.calls is None or self.state.threads == 1:
            return work.work_ms
        threads, together = float(self.state.threads), self.own_times(work.fragment.sha256).together
        left = max(1.0, together) / cost.together_gain(work.calls, threads, together)
        tasks = min(len(self.shares), self.state.threads)
        return work.work_ms / min(left, cost.together_gain(tasks, threads, together))

    def ahead_ms(self, now_ms: float, due_ms: float) -> float:
        """Return the work that is done before what is due at `due_ms`, as if none of it had begun."""
        return cost.ahead_ms(self.earlier.until_ms(due_ms), self.unexplained_until_ms, now_ms)


def _byte_ms(state: NodeState) -> float:
    """Return the time to move a byte from the broker to a node; infinite without a link."""
    return cost.transfer_ms(1, state.link_megabytes_per_second)


def _prepared(state: NodeState) -> dict[str, PreparedFragment]:
    """Return what a node has prepared, by fragment."""
    return {prepared.fragment: prepared for prepared in state.prepared}


def _timings(state: NodeState) -> dict[str, FragmentTiming]:
    """Return a node's own times, by fragment."""
    return {timing.fragment: timing for timing in state.timings}


def tracked_node(state: NodeState, now_ms: float, *, exclusive: bool) -> TrackedNode:
    """Return a node that has just appeared."""
    return TrackedNode(
        state,
        heartbeat_ms=now_ms,
        loaded=frozenset(state.loaded),
        prepared=_prepared(state),
        timings=_timings(state),
        stored=frozenset(state.stored),
        busy_until_ms=now_ms,
        unexplained_until_ms=now_ms,
        trusted_from_ms=-inf,
        link=LinkBacklog(_byte_ms(state)),
        exclusive=exclusive,
    )
