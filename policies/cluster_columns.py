"""The cluster as columns, one array over all nodes for each quantity: what a decision over 1,000 nodes reads.

`ClusterView` keeps them up to date; the same figures node by node are its own methods.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from messages.application import Fragment
from messages.cluster import NodeState

if TYPE_CHECKING:
    from policies.cluster import Share, TrackedNode

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FETCH_MS = 50.0
"""Fetching and loading a fragment, without the transfer of its bytes (measured: 49 ms to load 18 MB)."""

_FIRST_ROWS = 256


class ClusterColumns:
    """All living nodes in the order of the snapshot. Arrays are not to be changed by readers."""

    def __init__(self, nodes: "Sequence[TrackedNode]") -> None:
        """Columns of nodes as they are now."""
        states: list[NodeState] = [node.state for node in nodes]
        self.names: tuple[str, ...] = tuple(state.node for state in states)
        self.index: Mapping[str, int] = {name: index for index, name in enumerate(self.names)}
        self.rank = np.argsort(np.argsort(np.array(self.names, dtype=np.str_)))
        """Place of each node in the order of names."""
        self.score: Floats = np.array([state.score for state in states])
        self.link: Floats = np.array([state.link_megabytes_per_second for state in states])
        """MB/s."""
        self.memory_bytes: Floats = np.array([float(state.memory_budget_bytes) for state in states])
        self.reserved_bytes: Floats = np.zeros(len(states))
        self._nodes = nodes
        self._busy_until_ms: Floats = np.zeros(len(states))
        self._unexplained_until_ms: Floats = np.zeros(len(states))
        self._loaded: dict[str, Flags] = {}
        self._image_ms: dict[str, Floats] = {}
        self._reserved: dict[str, Flags] = {}
        self._arriving_ms: dict[str, Floats] = {}
        # Outstanding work, a row for each task and node; rows of what ended are used again.
        self._rows: dict[tuple[int, str], int] = {}
        self._vacant: list[int] = list(range(_FIRST_ROWS))
        self._row_node = np.zeros(_FIRST_ROWS, dtype=np.intp)
        self._row_due_ms = np.full(_FIRST_ROWS, inf)
        self._row_work_ms = np.zeros(_FIRST_ROWS)
        for index, node in enumerate(nodes):
            for task, share in node.shares.items():
                self.put_share(index, task, share)
            self.refresh(index)

    # --- what decisions read ---------------------------------------------------------------------------

    def usable(self, avoid: frozenset[str]) -> Flags:
        """Nodes that have a speed and a link and need not be avoided."""
        usable = (self.score > 0) & (self.link > 0)
        for name in avoid & self.index.keys():
            usable[self.index[name]] = False
        return usable

    def ready_ms(self, now_ms: float, due_ms: float = inf) -> Floats:
        """When each node is expected to begin work that is placed on it now: `ClusterView.ready_ms`."""
        work_ms = np.where(self._row_due_ms <= due_ms, self._row_work_ms, 0.0)
        ours_ms = np.bincount(self._row_node, weights=work_ms, minlength=len(self.names))
        ahead_ms = ours_ms + np.maximum(0.0, self._unexplained_until_ms - now_ms)
        ready_ms: Floats = np.maximum(now_ms, np.minimum(self._busy_until_ms, now_ms + ahead_ms))
        return ready_ms

    def unexplained_ms(self, now_ms: float) -> Floats:
        """Work of each node that stands in no ledger."""
        return np.maximum(0.0, self._unexplained_until_ms - now_ms)

    def free_bytes(self) -> Floats:
        """Memory of each node for further fragments: `ClusterView.free_bytes`."""
        return self.memory_bytes - self.reserved_bytes

    def reserved(self, sha256: str) -> Flags:
        """Where an outstanding task needs a fragment: `ClusterView.reserves`."""
        return self._flags(self._reserved, sha256)

    def loaded(self, sha256: str) -> Flags:
        """Where a fragment is loaded: `ClusterView.is_loaded`."""
        if sha256 not in self._loaded:
            self._loaded[sha256] = np.array([sha256 in node.loaded for node in self._nodes], dtype=bool)
        return self._loaded[sha256]

    def image_ms(self, sha256: str) -> Floats:
        """The nodes' own measurements of a fragment's time per image; not a number before they ran it."""
        if sha256 not in self._image_ms:
            self._image_ms[sha256] = np.array([node.timings.get(sha256, np.nan) for node in self._nodes])
        return self._image_ms[sha256]

    def fragment_ready_ms(self, fragment: Fragment, now_ms: float) -> Floats:
        """When each node can run a fragment: `ClusterView.fragment_ready_ms`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            moving_ms = np.where(self.link > 0, fragment.file_bytes / (1000 * self.link), inf)
        fetched_ms = now_ms + FETCH_MS + moving_ms
        arriving_ms = self._arriving_ms.get(fragment.sha256)
        if arriving_ms is not None:
            fetched_ms = np.where(np.isnan(arriving_ms), fetched_ms, np.maximum(now_ms, arriving_ms))
        return np.where(self.loaded(fragment.sha256), now_ms, fetched_ms)

    def work_ms(self, fragment: Fragment, reference_score: float, calls: int, images: int) -> Floats:
        """Computing time of some calls on so many images together; infinite for a node without speed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            slowness = reference_score / self.score
            measured_ms = self.image_ms(fragment.sha256)
            scaled_ms = fragment.milliseconds_per_image * slowness
            image_ms = np.where(np.isnan(measured_ms), scaled_ms, measured_ms)
            work_ms = calls * fragment.milliseconds_per_call * slowness + images * image_ms
        return np.where(self.score > 0, work_ms, inf)

    # --- how the cluster's view keeps them -------------------------------------------------------------

    def refresh(self, index: int) -> None:
        """A node's own figures changed."""
        node = self._nodes[index]
        self._busy_until_ms[index] = node.busy_until_ms
        self._unexplained_until_ms[index] = node.unexplained_until_ms
        self.reserved_bytes[index] = node.reserved_bytes
        for sha256, ready_ms in node.arriving.items():
            if sha256 not in self._arriving_ms:
                self._arriving_ms[sha256] = np.full(len(self.names), np.nan)
            self._arriving_ms[sha256][index] = ready_ms

    def put_share(self, index: int, task: str, share: "Share") -> None:
        """A task wants something of a node, or something else than before."""
        row = self._rows.get((index, task))
        if row is None:
            row = self._rows[index, task] = self._vacant.pop() if self._vacant else self._grow()
        self._row_node[row] = index
        self._row_due_ms[row] = share.due_ms
        self._row_work_ms[row] = share.work_ms
        for fragment in share.fragments:
            self._flags(self._reserved, fragment.sha256)[index] = True

    def drop_share(self, index: int, task: str, share: "Share") -> None:
        """A task wants nothing more of a node."""
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
        """Twice the rows; the first of the new ones."""
        size = len(self._row_work_ms)
        self._row_node = np.concatenate((self._row_node, np.zeros(size, dtype=np.intp)))
        self._row_due_ms = np.concatenate((self._row_due_ms, np.full(size, inf)))
        self._row_work_ms = np.concatenate((self._row_work_ms, np.zeros(size)))
        self._vacant = list(range(size + 1, 2 * size))
        return size
