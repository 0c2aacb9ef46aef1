"""The cluster as a decider knows it: the monitor's last snapshot plus its own ledger of placements since.

A snapshot is up to a second old and does not show work on its way to a node. So a decider keeps a ledger of
work that was placed and has not finished. All times are points on the caller's clock, in ms, real or
simulated.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import inf, nan

from splitplace.messages.application import Fragment
from splitplace.messages.cluster import ClusterState, NodeState
from splitplace.policies import cost
from splitplace.policies.cluster_columns import ClusterColumns
from splitplace.policies.cost import Floats
from splitplace.policies.link_backlog import LinkBacklog, share_of_link
from splitplace.policies.memory import described_bytes
from splitplace.policies.stage_work import StageWork
from splitplace.policies.tracked_node import RemainingLoad, TrackedNode, tracked_node

STALE_AFTER_MS = 60_000.0
"""Time after its expected end at which a placement without an outcome may be dropped; at least as long as the
placement was expected to take."""

MAX_OUTSTANDING = 10_000
"""Placements in the ledger; beyond it, the oldest is dropped."""


@dataclass(slots=True)
class _Placed:
    """A task in the ledger."""

    attempt: int
    work: tuple[StageWork, ...]
    due_ms: float
    stale_ms: float

    def repeats(self, attempt: int, work: tuple[StageWork, ...], due_ms: float) -> bool:
        """Whether another note says the same."""
        return (attempt, due_ms, work) == (self.attempt, self.due_ms, self.work)


def _mean(column: Floats) -> float:
    """Return the mean over all nodes; 0 without nodes."""
    return float(column.mean()) if len(column) else 0.0


def _or_nan(milliseconds: float | None) -> float:
    return nan if milliseconds is None else milliseconds


class ClusterView:
    """All live nodes, what they hold, and when they are expected to be free."""

    def __init__(self, exclusive: Collection[str] = ()) -> None:
        """A cluster that nothing is known of yet.

        Args:
            exclusive: names of nodes where every task has fragments of its own and a share of the processor,
                as the containers in the paper; on all others, tasks share fragments and take turns.
        """
        self._exclusive = frozenset(exclusive)
        self._nodes: dict[str, TrackedNode] = {}
        self._states: dict[str, NodeState] = {}
        self._ledger: dict[str, _Placed] = {}
        self._next_stale_ms = inf
        """No placement is stale before this."""
        self._sequence: int | None = None
        self._latest: tuple[ClusterState | None, float] = None, nan
        self._hop_ms = cost.HOP_MS
        self._broker = LinkBacklog()
        self._columns: ClusterColumns | None = None

    # --- what happens ----------------------------------------------------------------------------------

    def apply(self, snapshot: ClusterState, now_ms: float) -> None:
        """Take over the monitor's newest view; at the same moment, the same one again changes nothing.

        Dead and stalled nodes vanish; restarted ones (new boot id) are idle.
        """
        if snapshot is self._latest[0] and now_ms == self._latest[1]:
            return
        self._latest = snapshot, now_ms
        self._sequence = snapshot.sequence
        self._hop_ms = cost.HOP_MS if snapshot.hop_ms is None else snapshot.hop_ms
        broker = snapshot.broker_megabytes_per_second
        self._broker.change(0.0 if broker is None else cost.transfer_ms(1, broker), now_ms)
        self._forget_stale(now_ms)
        nodes = {}
        for state in snapshot.usable:
            node = self._nodes.get(state.node)
            if node is None or node.state.boot != state.boot:
                node = tracked_node(state, now_ms, exclusive=state.node in self._exclusive)
            node.report(state, now_ms)
            nodes[state.node] = node
        self._nodes = nodes
        if self._columns is not None and self._columns.covers(nodes.values()):
            self._columns.report()
        else:
            self._columns = None
        self._states = {name: node.state for name, node in nodes.items()}

    def placed(
        self,
        task: str,
        attempt: int,
        work: Iterable[StageWork],
        now_ms: float,
        *,
        due_ms: float = inf,
        forget_ms: float = 0.0,
    ) -> None:
        """Note the stages of a task on their nodes. Replaces another note; an older attempt is ignored.

        Args:
            task: its key.
            attempt: the attempt that this belongs to.
            work: the stages with their nodes.
            now_ms: the present moment.
            due_ms: the task's deadline; nodes run the earliest first.
            forget_ms: no outcome is needed from then on, but not before `STALE_AFTER_MS`. A note that
                replaces another one is kept at least as long.
        """
        before = self._ledger.get(task)
        placed_work = tuple(work)
        if before is not None and (attempt < before.attempt or before.repeats(attempt, placed_work, due_ms)):
            return
        if before is not None:
            self._withdraw(task, before, now_ms, done=False)
            forget_ms = max(forget_ms, before.stale_ms)
        self._forget_stale(now_ms)
        if not placed_work:
            return
        end_ms = now_ms
        for stage in placed_work:
            node = self._nodes.get(stage.node)
            if node is not None:
                self._add(node, task, stage, now_ms, due_ms)
                end_ms = max(end_ms, node.busy_until_ms)
        stale_ms = max(forget_ms, end_ms + max(STALE_AFTER_MS, end_ms - now_ms))
        self._ledger[task] = _Placed(attempt, placed_work, due_ms, stale_ms)
        self._broker.put(task, sum([stage.input_bytes for stage in placed_work]), now_ms)
        self._next_stale_ms = min(self._next_stale_ms, stale_ms)

    def finished(self, task: str, now_ms: float) -> None:
        """Take a task out of the ledger, whatever its outcome. Unknown tasks are ignored."""
        placed = self._ledger.get(task)
        if placed is not None:
            self._withdraw(task, placed, now_ms, done=True)

    # --- what is known ---------------------------------------------------------------------------------

    @property
    def known(self) -> bool:
        """Whether a snapshot has come yet."""
        return self._sequence is not None

    @property
    def sequence(self) -> int | None:
        """Number of the newest snapshot; None before the first."""
        return self._sequence

    @property
    def hop_ms(self) -> float:
        """Time from process to process through the broker, without the transfer of bytes."""
        return self._hop_ms

    @property
    def nodes(self) -> Mapping[str, NodeState]:
        """The live nodes, in the order of the snapshot."""
        return self._states

    def tracked(self, name: str) -> TrackedNode:
        """Return all that is known of a live node. Raises KeyError."""
        return self._nodes[name]

    @property
    def outstanding(self) -> int:
        """How many tasks the ledger holds."""
        return len(self._ledger)

    @property
    def columns(self) -> ClusterColumns:
        """The same figures as arrays over all nodes, made on first use."""
        if self._columns is None:
            self._columns = ClusterColumns(self._nodes.values())
        return self._columns

    def ready_ms(self, name: str, now_ms: float, *, due_ms: float = inf) -> float:
        """Return when a node is expected to begin work that is placed on it now; at least `now_ms`.

        Nodes run the earliest deadline first. So only outstanding work due by `due_ms` comes before, and
        what the node reported beyond the ledger. On an exclusive node all outstanding work does.

        Raises:
            KeyError: the node is not alive.
        """
        node = self._nodes[name]
        return cost.ready_ms(now_ms, node.busy_until_ms, node.ahead_ms(now_ms, due_ms))

    def load_ms(self, now_ms: float) -> float:
        """Return the mean backlog of the live nodes, or that of the broker's link if it is longer."""
        return max(_mean(self.columns.load_ms(now_ms)), self._broker.backlog_ms(now_ms))

    def broker_byte_ms(self, size: float, now_ms: float, *, idle: bool = False) -> float:
        """Return the time of a byte of a job on the broker's link; 0 where its bandwidth is not known.

        Args:
            size: bytes of the job, which shares the link with outstanding tasks.
            now_ms: the present moment.
            idle: as if it carried nothing else.
        """
        byte_ms = self._broker.byte_ms
        if idle or not byte_ms:
            return byte_ms
        backlog_bytes = self._broker.backlog_ms(now_ms) / byte_ms
        return byte_ms / share_of_link(size, backlog_bytes, self._broker.tasks(now_ms))

    def burden_ms(self, work_ms: float, size: float) -> float:
        """Return the larger of a job's shares of nodes and broker's link, as computing time of all nodes.

        Args:
            work_ms: its computing time.
            size: bytes that it brings over the broker's link.
        """
        return max(work_ms, len(self._nodes) * size * self._broker.byte_ms)

    def wait_ms(self, name: str, now_ms: float) -> float:
        """Return for how long a node's processor or link is busy. Raises as `ready_ms` does."""
        return max(self._nodes[name].link.backlog_ms(now_ms), self.ready_ms(name, now_ms) - now_ms)

    def delays(self, names: Iterable[str], now_ms: float) -> bool:
        """Whether anything that was placed delays a job on these nodes. Raises as `ready_ms` does."""
        return self._broker.backlog_ms(now_ms) > 0 or any(self.wait_ms(name, now_ms) > 0 for name in names)

    @property
    def link_megabytes_per_second(self) -> float:
        """Mean bandwidth of the live nodes; 0 without nodes."""
        return _mean(self.columns.link)

    def fragment_ready_ms(self, name: str, fragment: Fragment, now_ms: float) -> float:
        """Return when a node can run a fragment: now if it is loaded, else after fetching and loading it.

        Its files need the time of the link, unless they are there. The time to load is what the node reports,
        or a guess. A fragment that is prepared there is only mapped.

        Raises:
            KeyError: the node is not alive.
        """
        node = self._nodes[name]
        if fragment.sha256 in node.loaded:
            return now_ms
        if fragment.sha256 in node.prepared:
            fetching_ms = cost.map_ms(_or_nan(node.state.map_ms))
        else:
            fetching_ms = cost.fetch_ms(
                fragment.file_bytes,
                node.state.link_megabytes_per_second,
                node.load_ms(fragment.file_bytes),
                is_missing=fragment.sha256 not in node.stored,
            )
        return cost.fragment_ready_ms(now_ms, node.arriving.get(fragment.sha256, nan), fetching_ms)

    def output_ratio(self, name: str, fragment: Fragment) -> float:
        """Return what is left of a fragment's outputs when a node has encoded them, 0 to 1.

        As the node has measured it, else as others have, else as the manifest says where nodes compress.

        Raises:
            KeyError: the node is not alive.
        """
        return float(self.columns.output_ratio(fragment)[self.columns.index[name]])

    def is_loaded(self, name: str, sha256: str) -> bool:
        """Whether a node reported a fragment as loaded. Raises KeyError for a node that is not alive."""
        return sha256 in self._nodes[name].loaded

    def familiar(self, name: str) -> frozenset[str]:
        """Return the fragments that a node has, expects, uses or has measured. Raises KeyError."""
        node = self._nodes[name]
        return node.loaded.union(node.prepared, node.timings, node.arriving, node.users)

    def speed(self, name: str, fragment: Fragment, reference_score: float, calls: int) -> tuple[float, float]:
        """Return the time of a call of a fragment and that of an image in it, where some calls wait together.

        The node's own measurements count; before it has any, the description by its speed.

        Args:
            name: the node.
            fragment: what is to run.
            reference_score: speed of the device on which it was timed.
            calls: number of calls.

        Raises:
            KeyError: the node is not alive.
        """
        return self._nodes[name].speed(fragment, reference_score, calls)

    def reserves(self, name: str, sha256: str) -> bool:
        """Whether an outstanding task needs a fragment on a node. Raises KeyError for a node not alive."""
        return sha256 in self._nodes[name].users

    def shares(self, name: str, sha256: str) -> bool:
        """Whether a further task can use a fragment there without more memory. Raises KeyError."""
        node = self._nodes[name]
        return sha256 in node.users and not node.exclusive

    def needed_bytes(self, name: str, fragment: Fragment) -> float:
        """Return the memory that must be free on a node for a fragment, as the node has measured it.

        Infinite if the node is too small to prepare it.

        Raises:
            KeyError: the node is not alive.
        """
        return self._nodes[name].needed_bytes(fragment)

    def free_bytes(self, name: str) -> int:
        """Return the memory for further fragments. Idle ones can be evicted, those of tasks cannot.

        Raises:
            KeyError: the node is not alive.
        """
        node = self._nodes[name]
        return node.state.memory_budget_bytes - node.reserved_bytes

    # --- inside ----------------------------------------------------------------------------------------

    def _add(self, node: TrackedNode, task: str, work: StageWork, now_ms: float, due_ms: float) -> None:
        fragment = work.fragment
        ready_ms = self.fragment_ready_ms(node.state.node, fragment, now_ms)
        if fragment.sha256 not in node.loaded:
            node.arriving[fragment.sha256] = ready_ms
        # Where tasks share the processor, urgent ones do not overtake: whatever runs there comes before.
        order_ms = -inf if node.exclusive else due_ms
        share = node.shares.setdefault(task, RemainingLoad(0.0, order_ms, []))
        work_ms = node.occupied_ms(work)
        node.busy_until_ms = max(now_ms, node.busy_until_ms) + work_ms
        share.work_ms += work_ms
        share.fragments.append(fragment)
        node.earlier.put(task, share.due_ms, share.work_ms)
        node.link.put(task, work.input_bytes, now_ms)
        users = node.users.get(fragment.sha256, 0)
        node.users[fragment.sha256] = users + 1
        if not users:
            own_bytes = node.own_bytes(fragment.sha256)
            node.sizes[fragment.sha256] = described_bytes(fragment) if own_bytes is None else own_bytes
        if not users or node.exclusive:
            node.reserved_bytes += node.sizes[fragment.sha256]
        if self._columns is not None:
            index = self._columns.index[work.node]
            self._columns.put_share(index, task, share)
            self._columns.refresh(index)

    def _withdraw(self, task: str, placed: _Placed, now_ms: float, *, done: bool) -> None:
        """Take a task out of the ledger: `done` work has passed, other work will never come."""
        del self._ledger[task]
        self._broker.drop(task, now_ms)
        for name in {stage.node for stage in placed.work}:
            node = self._nodes.get(name)
            share = node.shares.pop(task, None) if node is not None else None
            if node is None or share is None:
                continue  # the node died or restarted since
            node.earlier.drop(task, share.due_ms)
            node.link.drop(task, now_ms)
            for fragment in share.fragments:
                node.users[fragment.sha256] -= 1
                if not node.users[fragment.sha256] or node.exclusive:
                    node.reserved_bytes -= node.sizes[fragment.sha256]
                if not node.users[fragment.sha256]:
                    del node.users[fragment.sha256], node.sizes[fragment.sha256]
            gone_ms = 0.0 if done else share.work_ms
            node.busy_until_ms = min(node.busy_until_ms - gone_ms, now_ms + node.ahead_ms(now_ms, inf))
            if done and not node.shares:
                node.busy_until_ms = node.unexplained_until_ms = node.trusted_from_ms = now_ms
            if self._columns is not None:
                index = self._columns.index[name]
                self._columns.drop_share(index, task, share)
                self._columns.refresh(index)

    def _forget_stale(self, now_ms: float) -> None:
        """Drop stale placements, and the oldest ones where there are too many."""
        while len(self._ledger) >= MAX_OUTSTANDING:
            task, placed = next(iter(self._ledger.items()))
            self._withdraw(task, placed, now_ms, done=True)
        if now_ms < self._next_stale_ms:
            return
        for task, placed in list(self._ledger.items()):
            if now_ms >= placed.stale_ms:
                self._withdraw(task, placed, now_ms, done=True)
        self._next_stale_ms = min((placed.stale_ms for placed in self._ledger.values()), default=inf)
