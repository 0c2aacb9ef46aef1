"""Which nodes there are and which of them live. Pure: messages and times in, views out.

A node has **joined** when its retained status says online and its info, of the same start of the process
(boot id), is known. It is **offline** at once when its last will or goodbye comes, and when it has not been
heard for `silent_after_ms`; a later heartbeat revives it from silence, but only a new status from a last
will, because a heartbeat may be overtaken by the will of the process that sent it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from splitplace.messages.cluster import ClusterState, NodeInfo, NodeState, NodeStatus, NodeVitals
from splitplace.messages.limits import MAX_NODES
from splitplace.messages.metrics import ClusterMetrics, NodeMetrics
from splitplace.policies.scoring import jain_fairness

SILENT_AFTER_MS = 2500.0
FORGET_AFTER_MS = 600_000.0
LINK_MEGABYTES_PER_SECOND = 100.0

OWN_ABSENCE_MS = 1000.0
"""Where two calls of `tick` lie further apart, we were not listening; nobody is called silent for it."""

_SUPERSEDED_FOR_MS = 30_000.0
_MAX_SUPERSEDED = 8

_MOST_MS = 1e12
_MOST_JOULES = 1e18
"""What the messages allow: the sum of what liars say must not exceed it either."""


@dataclass(slots=True)
class _Node:
    heard_ms: float
    """When its last heartbeat or status came."""
    boot: str | None = None
    announced: bool = False
    """Whether the status of this boot says online."""
    silent: bool = False
    info: NodeInfo | None = None
    vitals: NodeVitals | None = None
    superseded: dict[str, float] = field(default_factory=dict)
    """Earlier boots and when they were succeeded: what they still say is late, not news."""

    @property
    def online(self) -> bool:
        return self.announced and not self.silent and self.info is not None and self.info.boot == self.boot

    @property
    def membership(self) -> tuple[bool, str | None]:
        """What others must hear of at once when it changes."""
        return self.online, self.boot if self.online else None


class ResourceMonitorCore:
    """All nodes heard of, less those long gone. Methods that return a bool tell whether members changed."""

    def __init__(
        self,
        *,
        silent_after_ms: float = SILENT_AFTER_MS,
        forget_after_ms: float = FORGET_AFTER_MS,
        link_megabytes_per_second: float = LINK_MEGABYTES_PER_SECOND,
        max_nodes: int = MAX_NODES,
    ) -> None:
        """An empty cluster.

        Args:
            silent_after_ms: without a heartbeat for so long, a node is offline.
            forget_after_ms: offline for so long, a node is forgotten.
            link_megabytes_per_second: assumed of every node's link, which nobody measures yet.
            max_nodes: beyond it, whoever is offline longest is forgotten; where nobody is, newcomers are
                ignored.
        """
        self._silent_after_ms = silent_after_ms
        self._forget_after_ms = forget_after_ms
        self._link = link_megabytes_per_second
        self._max_nodes = max_nodes
        self._nodes: dict[str, _Node] = {}
        self._ticked_ms: float | None = None

    # --- what nodes say --------------------------------------------------------------------------------

    def status(self, status: NodeStatus, now_ms: float) -> bool:
        """A node's own status, or its last will."""
        node = self._find(status.node, now_ms)
        if node is None or (not status.online and node.boot not in (None, status.boot)):
            return False  # the last will of an earlier boot
        before = node.membership
        if not self._is_current(node, status.boot, now_ms):
            return False
        node.announced = status.online
        if status.online:
            node.silent = False
            node.heard_ms = now_ms
        return node.membership != before

    def info(self, info: NodeInfo, now_ms: float) -> bool:
        """What a node can do. Says nothing about whether it lives: it is retained."""
        node = self._find(info.node, now_ms)
        if node is None or _is_superseded(node, info.boot, now_ms):
            return False
        before = node.membership
        node.info = info
        return node.membership != before

    def vitals(self, vitals: NodeVitals, now_ms: float) -> bool:
        """A heartbeat."""
        node = self._find(vitals.node, now_ms)
        if node is None:
            return False
        before = node.membership
        if not self._is_current(node, vitals.boot, now_ms):
            return False
        node.vitals = vitals
        node.silent = False
        node.heard_ms = now_ms
        return node.membership != before

    def forget(self, name: str) -> None:
        """A node's retained status was cleared: if it is offline, it was taken away for good.

        One that is online is kept: an empty message is too easily sent by mistake to take out a node
        that still speaks.
        """
        node = self._nodes.get(name)
        if node is not None and not node.online:
            del self._nodes[name]

    # --- time ------------------------------------------------------------------------------------------

    def tick(self, now_ms: float) -> bool:
        """Notice silence. To be called often; not while we cannot hear (see `OWN_ABSENCE_MS`)."""
        absence = now_ms - (self._ticked_ms if self._ticked_ms is not None else now_ms)
        self._ticked_ms = now_ms
        changed = False
        for name, node in list(self._nodes.items()):
            if absence > OWN_ABSENCE_MS and node.online:
                node.heard_ms = now_ms
            before = node.membership
            node.silent = node.silent or now_ms - node.heard_ms >= self._silent_after_ms
            changed |= node.membership != before
            if not node.online and now_ms - node.heard_ms >= self._forget_after_ms:
                del self._nodes[name]
        return changed

    # --- views -----------------------------------------------------------------------------------------

    def cluster(self, sequence: int, now_ms: float) -> ClusterState:
        """All nodes whose capacity is known, by name."""
        return ClusterState(
            sequence=sequence,
            nodes=tuple(
                self._state(name, node, node.info, now_ms)
                for name, node in sorted(self._nodes.items())
                if node.info is not None
            ),
        )

    def node_metrics(self) -> Iterator[NodeMetrics]:
        """What is shown of every node that has joined once; of an offline one, what it said last."""
        for name, node in self._nodes.items():
            if node.info is not None and node.vitals is not None:
                said = node.vitals
                yield NodeMetrics(
                    node=name,
                    online=node.online,
                    cpu_ratio=said.cpu_ratio,
                    resident_bytes=said.resident_bytes,
                    loaded_bytes=said.loaded_bytes,
                    memory_budget_bytes=node.info.memory_budget_bytes,
                    queue_length=said.queue_length,
                    queue_ms=said.queue_ms,
                    executed=said.executed,
                    dropped=said.dropped,
                    sent_bytes=said.sent_bytes,
                    received_bytes=said.received_bytes,
                    temperature_celsius=said.temperature_celsius,
                    throttled=said.throttled,
                    energy_joules=said.energy_joules,
                )

    def cluster_metrics(self) -> ClusterMetrics:
        """All nodes together."""
        known = [node for node in self._nodes.values() if node.info is not None]
        heard = [node.vitals for node in known if node.online and node.vitals is not None]
        fairness = jain_fairness([vitals.cpu_ratio for vitals in heard])
        return ClusterMetrics(
            nodes=len(known),
            online=sum(node.online for node in known),
            queue_ms=min(_MOST_MS, sum(vitals.queue_ms for vitals in heard)),
            energy_joules=min(
                _MOST_JOULES, sum(node.vitals.energy_joules for node in known if node.vitals is not None)
            ),
            fairness=None if fairness is None else min(1.0, fairness),
        )

    # --- inside ----------------------------------------------------------------------------------------

    def _find(self, name: str, now_ms: float) -> _Node | None:
        """The node, new where it was unknown; None where there is no room for it."""
        node = self._nodes.get(name)
        if node is None:
            if len(self._nodes) >= self._max_nodes and not self._make_room():
                return None
            node = self._nodes[name] = _Node(now_ms)
        return node

    def _make_room(self) -> bool:
        offline = [name for name, node in self._nodes.items() if not node.online]
        if not offline:
            return False
        del self._nodes[min(offline, key=lambda name: self._nodes[name].heard_ms)]
        return True

    @staticmethod
    def _is_current(node: _Node, boot: str, now_ms: float) -> bool:
        """Whether a boot is the node's newest; one never heard of succeeds the one before."""
        if boot == node.boot:
            return True
        if _is_superseded(node, boot, now_ms):
            return False
        if node.boot is not None:
            node.superseded[node.boot] = now_ms
        node.boot, node.announced, node.vitals = boot, False, None
        return True

    def _state(self, name: str, node: _Node, info: NodeInfo, now_ms: float) -> NodeState:
        vitals = node.vitals
        return NodeState(
            node=name,
            boot=node.boot or info.boot,
            online=node.online,
            silent_ms=max(0.0, now_ms - node.heard_ms),
            score=info.score,
            memory_budget_bytes=info.memory_budget_bytes,
            loaded=vitals.loaded if vitals else (),
            queue_ms=vitals.queue_ms if vitals else 0.0,
            queue_length=vitals.queue_length if vitals else 0,
            cpu_ratio=vitals.cpu_ratio if vitals else 0.0,
            link_megabytes_per_second=self._link,
            timings=vitals.timings if vitals else (),
            load_ms=vitals.load_ms if vitals else None,
        )


def _is_superseded(node: _Node, boot: str, now_ms: float) -> bool:
    """Whether a boot is known to be an earlier one.

    Boot ids are random, so that this takes memory. Not for ever: two messages that overtook each other must
    not shut out the living process.
    """
    for earlier, since_ms in list(node.superseded.items()):
        if now_ms - since_ms >= _SUPERSEDED_FOR_MS or len(node.superseded) > _MAX_SUPERSEDED:
            del node.superseded[earlier]
    return boot in node.superseded
