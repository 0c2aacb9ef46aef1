"""The cluster as columns: one array over all nodes for each quantity, for decisions over 1,000 nodes.

`ClusterView` keeps them up to date; its methods give the same figures node by node.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf, nan
from operator import is_

import numpy as np

from splitplace.messages.application import Fragment
from splitplace.messages.cluster import FragmentTiming, PreparedFragment
from splitplace.policies import cost
from splitplace.policies.cost import Flags, Floats
from splitplace.policies.tracked_node import RemainingLoad, TrackedNode

_FIRST_ROWS = 256


class ClusterColumns:
    """All live nodes in the order of the snapshot. Readers must not change the arrays."""

    def __init__(self, nodes: Iterable[TrackedNode]) -> None:
        """Make the columns of nodes as they are now."""
        self._nodes: Sequence[TrackedNode] = tuple(nodes)
        self.names: tuple[str, ...] = tuple(node.state.node for node in self._nodes)
        self.index: Mapping[str, int] = {name: index for index, name in enumerate(self.names)}
        self.rank = np.argsort(np.argsort(np.array(self.names, dtype=np.str_)))
        """Place of each node in the order of names."""
        size = len(self._nodes)
        self.score: Floats = np.zeros(size)
        self._threads: Floats = np.ones(size)
        self.link: Floats = np.zeros(size)
        """Bandwidth from the broker in MB/s."""
        self.byte_ms: Floats = np.zeros(size)
        """Time to move a byte from the broker; infinite without a link."""
        self.up_byte_ms: Floats = np.zeros(size)
        """Time to move a byte towards the broker; infinite without a link."""
        self.latency_ms: Floats = np.zeros(size)
        """Time between the broker and each node, one way, without the transfer of bytes."""
        self.memory_bytes: Floats = np.zeros(size)
        self.sharing: Flags = np.array([not node.exclusive for node in self._nodes], dtype=bool)
        """Where tasks share fragments."""
        self._megabyte_ms: Floats = np.zeros(size)
        """What each megabyte of its files adds to loading a fragment."""
        self._load_ms: Floats = np.zeros(size)
        """Fixed time to load a fragment whose files are there; NaN where none was loaded."""
        self._map_ms: Floats = np.zeros(size)
        """Time to load a prepared fragment; NaN where they have loaded none."""
        self._reserved_bytes: Floats = np.zeros(size)
        self.link_free_ms: Floats = np.zeros(size)
        """When the link of each node has brought what was placed on it."""
        self._busy_until_ms, self._unexplained_until_ms = np.zeros(size), np.zeros(size)
        # The last reports of the nodes: caches stay valid while they do not change.
        self._holdings: list[frozenset[str]] = []
        self._speeds: list[tuple[float, int, float]] = []
        self._timings: list[Mapping[str, FragmentTiming]] = []
        self._forms: list[Mapping[str, PreparedFragment]] = []
        # By fragment, made on first use.
        self._loaded: dict[str, Flags] = {}
        self._everywhere: dict[str, bool] = {}
        self._prepared: dict[str, Flags] = {}
        self._needed_bytes: dict[str, Floats] = {}
        # Time of a call and time of an image, where so many calls wait together.
        self._times: dict[tuple[str, float, int], tuple[Floats, Floats]] = {}
        # What is left of its outputs when they are encoded, and what each node has measured of that.
        self._ratios: dict[str, Floats] = {}
        self._own_ratios: dict[str, Floats] = {}
        self._reserved: dict[str, Flags] = {}
        self._arriving_ms: dict[str, Floats] = {}
        # Outstanding work, a row for each task and node; rows of finished tasks are reused.
        self._rows: dict[tuple[int, str], int] = {}
        self._vacant: list[int] = list(range(_FIRST_ROWS))
        self._row_node = np.zeros(_FIRST_ROWS, dtype=np.intp)
        self._row_due_ms = np.full(_FIRST_ROWS, inf)
        self._row_work_ms = np.zeros(_FIRST_ROWS)
        self.report()
        for index, node in enumerate(self._nodes):
            for task, share in node.shares.items():
                self.put_share(index, task, share)

    def report(self) -> None:
        """Update the columns after new heartbeats of the same nodes."""
        states = [node.state for node in self._nodes]
        self.link[:] = [state.link_megabytes_per_second for state in states]
        self.byte_ms[:] = cost.transfer_ms(1, self.link)
        up_byte_ms = cost.transfer_ms(1, np.array([state.up for state in states], dtype=np.float64))
        if not np.array_equal(up_byte_ms, self.up_byte_ms):
            self._ratios.clear()
        self.up_byte_ms[:] = up_byte_ms
        self.latency_ms[:] = [state.latency_ms for state in states]
        budgets = [state.memory_budget_bytes for state in states]
        if self.memory_bytes.tolist() != budgets:
            self.memory_bytes[:] = budgets
            self._needed_bytes.clear()
        self._load_ms[:] = [nan if state.load_ms is None else state.load_ms for state in states]
        self._megabyte_ms[:] = [state.load_ms_per_megabyte for state in states]
        self._map_ms[:] = [nan if state.map_ms is None else state.map_ms for state in states]
        self._report_forms([node.prepared for node in self._nodes])
        self._report_speeds(
            [(state.score, state.threads, state.together) for state in states],
            [node.timings for node in self._nodes],
        )
        self._report_holdings([node.loaded for node in self._nodes])
        self._usable = (self.score > 0) & (self.link > 0) & np.isfinite(self.up_byte_ms)
        self.link_free_ms[:] = [node.link.free_ms for node in self._nodes]
        self._busy_until_ms[:] = [node.busy_until_ms for node in self._nodes]
        self._unexplained_until_ms[:] = [node.unexplained_until_ms for node in self._nodes]
        self._reserved_bytes[:] = [node.reserved_bytes for node in self._nodes]
        self._arriving_ms.clear()
        for index, node in enumerate(self._nodes):
            if node.arriving:
                self._report_arriving(index)

    def _report_speeds(
        self, speeds: list[tuple[float, int, float]], timings: list[Mapping[str, FragmentTiming]]
    ) -> None:
        if speeds == self._speeds and all(map(is_, timings, self._timings)):
            return
        self._speeds, self._timings = speeds, timings
        self.score[:] = [score for score, _, _ in speeds]
        self._threads[:] = [threads for _, threads, _ in speeds]
        self._times.clear()
        self._ratios.clear()
        self._own_ratios.clear()

    def _report_forms(self, forms: list[Mapping[str, PreparedFragment]]) -> None:
        if len(forms) != len(self._forms) or not all(map(is_, forms, self._forms)):
            self._forms = forms
            self._prepared.clear()
            self._needed_bytes.clear()

    def _report_holdings(self, holdings: list[frozenset[str]]) -> None:
        if len(holdings) != len(self._holdings) or not all(map(is_, holdings, self._holdings)):
            self._holdings = holdings
            self._loaded.clear()
            self._everywhere.clear()

    def covers(self, nodes: Collection[TrackedNode]) -> bool:
        """Whether the columns are of exactly these nodes, in this order."""
        return len(nodes) == len(self._nodes) and all(map(is_, nodes, self._nodes))

    # --- what decisions read ---------------------------------------------------------------------------

    def usable(self, avoid: frozenset[str]) -> Flags:
        """Return which nodes have a speed and a link and need not be avoided."""
        if not avoid:
            return self._usable
        usable = self._usable.copy()
        for name in avoid & self.index.keys():
            usable[self.index[name]] = False
        return usable

    def chosen(self, flags: Flags) -> list[str]:
        """Return the names of the nodes for which a flag is set, in the order of the snapshot."""
        return [name for name, flag in zip(self.names, flags.tolist(), strict=True) if flag]

    def ready_ms(self, now_ms: float, due_ms: float = inf) -> Floats:
        """Return when each node can begin work that is placed on it now: `ClusterView.ready_ms`."""
        work_ms = np.where(self._row_due_ms <= due_ms, self._row_work_ms, 0.0)
        counted = np.bincount(self._row_node, weights=work_ms, minlength=len(self.names))
        earlier_ms = counted.astype(np.float64, copy=False)
        ahead_ms = cost.ahead_ms(earlier_ms, self._unexplained_until_ms, now_ms)
        return cost.ready_ms(now_ms, self._busy_until_ms, ahead_ms)

    def load_ms(self, now_ms: float) -> Floats:
        """Return the backlog of each node."""
        return np.maximum(0.0, self._busy_until_ms - now_ms)

    def unexplained_ms(self, now_ms: float) -> Floats:
        """Return the work of each node that no ledger explains."""
        return np.maximum(0.0, self._unexplained_until_ms - now_ms)

    def free_bytes(self) -> Floats:
        """Return the memory of each node for further fragments: `ClusterView.free_bytes`."""
        return self.memory_bytes - self._reserved_bytes

    def reserved(self, sha256: str) -> Flags:
        """Return where an outstanding task needs a fragment: `ClusterView.reserves`."""
        return self._flags(self._reserved, sha256)

    def shared(self, sha256: str) -> Flags:
        """Return where a further task can use a fragment without more memory: `ClusterView.shares`."""
        shared: Flags = self.reserved(sha256) & self.sharing
        return shared

    def loaded(self, sha256: str) -> Flags:
        """Return where a fragment is loaded: `ClusterView.is_loaded`."""
        if sha256 not in self._loaded:
            self._loaded[sha256] = np.array([sha256 in held for held in self._holdings], dtype=bool)
        return self._loaded[sha256]

    def loaded_everywhere(self, sha256: str) -> bool:
        """Whether every node has loaded a fragment."""
        if sha256 not in self._everywhere:
            self._everywhere[sha256] = bool(self.loaded(sha256).all())
        return self._everywhere[sha256]

    def prepared(self, sha256: str) -> Flags:
        """Return where a fragment can be mapped without preparing it first."""
        if sha256 not in self._prepared:
            self._prepared[sha256] = np.array([sha256 in forms for forms in self._forms], dtype=bool)
        return self._prepared[sha256]

    def needed_bytes(self, fragment: Fragment) -> Floats:
        """Return the memory that must be free on each node for a fragment: `ClusterView.needed_bytes`."""
        if fragment.sha256 not in self._needed_bytes:
            needed = [node.needed_bytes(fragment) for node in self._nodes]
            self._needed_bytes[fragment.sha256] = np.array(needed, dtype=np.float64)
        return self._needed_bytes[fragment.sha256]

    def fragment_ready_ms(self, fragment: Fragment, now_ms: float) -> Floats:
        """Return when each node can run a fragment: `ClusterView.fragment_ready_ms`."""
        if self.loaded_everywhere(fragment.sha256):
            return np.full(len(self.names), now_ms)
        fetching_ms = np.where(
            self.prepared(fragment.sha256),
            cost.map_ms(self._map_ms),
            cost.fetch_ms(
                fragment.file_bytes,
                self.link,
                self._load_ms + self._megabyte_ms * fragment.file_bytes / 1e6,
                is_missing=~self._stored(fragment.sha256),
            ),
        )
        arriving_ms = self._arriving_ms.get(fragment.sha256)
        if arriving_ms is None:
            ready_ms = now_ms + fetching_ms
        else:
            ready_ms = cost.fragment_ready_ms(now_ms, arriving_ms, fetching_ms)
        return np.where(self.loaded(fragment.sha256), now_ms, ready_ms)

    def _stored(self, sha256: str) -> Flags:
        """Return where the files of a fragment are."""
        return np.array([sha256 in node.stored for node in self._nodes], dtype=bool)

    def output_ratio(self, fragment: Fragment) -> Floats:
        """Return what is left of a fragment's outputs when each node has encoded them."""
        sha256 = fragment.sha256
        if sha256 not in self._ratios:
            own = self._own_ratio(sha256)
            known = own[~np.isnan(own)].tolist()
            others = sum(known) / len(known) if known else np.where(self.compress, fragment.output_ratio, 1.0)
            self._ratios[sha256] = np.where(np.isnan(own), others, own)
        return self._ratios[sha256]

    def _own_ratio(self, sha256: str) -> Floats:
        if sha256 not in self._own_ratios:
            timings = [node.timings.get(sha256) for node in self._nodes]
            measured = [None if timing is None else timing.output_ratio for timing in timings]
            self._own_ratios[sha256] = np.array([nan if ratio is None else ratio for ratio in measured])
        return self._own_ratios[sha256]

    @property
    def compress(self) -> Flags:
        """Which nodes compress what they send, unless they were told otherwise."""
        slow: Flags = self.up_byte_ms > cost.transfer_ms(1, cost.COMPRESS_BELOW_MEGABYTES_PER_SECOND)
        return slow

    def work_ms(self, fragment: Fragment, reference_score: float, calls: int, images: int) -> Floats:
        """Return [N] the computing time of some calls on so many images together; infinite without speed."""
        times = self._times.get((fragment.sha256, reference_score, calls))
        if times is None:
            slow = cost.slowness(reference_score, self.score)
            own = np.array([node.own_times(fragment.sha256) for node in self._nodes]).reshape(-1, 3)
            gain = cost.together_gain(calls, self._threads, own[:, 2])
            times = self._times[fragment.sha256, reference_score, calls] = (
                cost.call_ms(fragment.milliseconds_per_call, slow, own[:, 0]) / gain,
                cost.image_ms(fragment.milliseconds_per_image, slow, own[:, 1]) / gain,
            )
        return cost.work_ms(calls, images, *times)

    # --- how the cluster's view keeps them -------------------------------------------------------------

    def refresh(self, index: int) -> None:
        """Update the figures of one node."""
        node = self._nodes[index]
        self.link_free_ms[index] = node.link.free_ms
        self._busy_until_ms[index] = node.busy_until_ms
        self._unexplained_until_ms[index] = node.unexplained_until_ms
        self._reserved_bytes[index] = node.reserved_bytes
        if node.arriving:
            self._report_arriving(index)

    def _report_arriving(self, index: int) -> None:
        for sha256, ready_ms in self._nodes[index].arriving.items():
            if sha256 not in self._arriving_ms:
                self._arriving_ms[sha256] = np.full(len(self.names), np.nan)
            self._arriving_ms[sha256][index] = ready_ms

    def put_share(self, index: int, task: str, share: RemainingLoad) -> None:
        """Add or replace what a task still needs of a node."""
        row = self._rows.get((index, task))
        if row is None:
            row = self._rows[index, task] = self._vacant.pop() if self._vacant else self._grow()
        self._row_node[row] = index
        self._row_due_ms[row] = share.due_ms
        self._row_work_ms[row] = share.work_ms
        for fragment in share.fragments:
            self._flags(self._reserved, fragment.sha256)[index] = True

    def drop_share(self, index: int, task: str, share: RemainingLoad) -> None:
        """Remove what a task needed of a node."""
        row = self._rows.pop((index, task))
        self._row_work_ms[row] = 0.0
        self._vacant.append(row)
        users = self._nodes[index].users
        for fragment in share.fragments:
            self._flags(self._reserved, fragment.sha256)[index] = fragment.sha256 in users

    def _flags(self, table: dict[str, Flags], sha256: str) -> Flags:
        if sha256 not in table:
            table[sha256] = np.zeros(len(self.names), dtype=bool)
        return table[sha256]

    def _grow(self) -> int:
        """Double the rows and return the first new one."""
        size = len(self._row_work_ms)
        self._row_node = np.concatenate((self._row_node, np.zeros(size, dtype=np.intp)))
        self._row_due_ms = np.concatenate((self._row_due_ms, np.full(size, inf)))
        self._row_work_ms = np.concatenate((self._row_work_ms, np.zeros(size)))
        self._vacant = list(range(size + 1, 2 * size))
        return size
