"""The state of the cluster in parts: told by the resource monitor as it changes, put together by readers.

A node is told when something of it changes. Each moment ends with who is there and who is busy. All of it is
retained, so who comes late or was away needs to ask nobody. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf
from typing import Any, Final

from splitplace.messages.cluster import ClusterMembers, ClusterState, NodeLoad, NodeState, NodeVitals
from splitplace.messages.limits import MAX_NODES

TOLD_AGAIN_MS = 60_000.0
"""A node that did not change is told again after this time: somebody may have missed it."""

BUSY_CPU = 0.1
"""Use of its CPU from which a node without tasks counts as busy. Below, it is not told."""

_AGAIN_AT_ONCE = 0.1
"""Share of the nodes that are told again at one moment, at most."""

_LOAD = frozenset(NodeLoad.model_fields) - {"node"}
_IDLE: Final[Mapping[str, Any]] = {name: NodeState.model_fields[name].default for name in _LOAD}


def is_busy(node: NodeState | NodeVitals) -> bool:
    """Whether a node has something to do."""
    return node.queue_length > 0 or node.queue_ms > 0 or bool(node.loads) or node.cpu_ratio >= BUSY_CPU


@dataclass(frozen=True, slots=True)
class Telling:
    """What to say at one moment, in this order."""

    nodes: tuple[NodeState, ...]
    """Those that have changed, without how busy they are."""
    members: ClusterMembers
    gone: tuple[str, ...]
    """Nodes that nothing is to be retained about any more."""


class ClusterTeller:
    """Knows what was told, and says what is to be told of the next state."""

    def __init__(self, *, idle_ms: float) -> None:
        """Nothing was told yet.

        Args:
            idle_ms: time after which something is said although nothing has changed.
        """
        self._idle_ms = idle_ms
        self._told: dict[str, tuple[NodeState, float]] = {}
        """What was told of each node, and when; what was told last stands last."""
        self._members: ClusterMembers | None = None
        self._at_ms = -inf

    def forget(self) -> None:
        """Tell everything again: the broker may be a new one."""
        self._told.clear()
        self._members = None

    def is_told(self, node: str) -> bool:
        """Whether something is retained of a node."""
        return node in self._told

    def is_busy(self, node: str) -> bool:
        """Whether a node was told to be busy."""
        return self._members is not None and any(load.node == node for load in self._members.busy)

    def tell(self, state: ClusterState, now_ms: float) -> Telling | None:
        """Return what to say so that all know a state; None if there is nothing to say."""
        busy = tuple([_load(node) for node in state.nodes if node.online and is_busy(node)])
        members = ClusterMembers(
            sequence=state.sequence,
            hop_ms=state.hop_ms,
            broker_megabytes_per_second=state.broker_megabytes_per_second,
            nodes=tuple([node.node for node in state.nodes]),
            busy=busy,
        )
        changed = self._changed(state, now_ms)
        gone = tuple(self._told.keys() - set(members.nodes))
        before = self._members
        is_same = before is not None and members == before.model_copy(update={"sequence": state.sequence})
        if is_same and not busy and not changed and now_ms - self._at_ms < self._idle_ms:
            return None
        self._members, self._at_ms = members, now_ms
        for node in changed:
            self._told.pop(node.node, None)
            self._told[node.node] = node, now_ms
        for name in gone:
            del self._told[name]
        return Telling(changed, members, gone)

    def _changed(self, state: ClusterState, now_ms: float) -> tuple[NodeState, ...]:
        offers = {node.node: node.model_copy(update=_IDLE) for node in state.nodes}
        news = {
            name: offer
            for name, offer in offers.items()
            if name not in self._told or self._told[name][0] != offer
        }
        room = ceil(_AGAIN_AT_ONCE * len(offers))
        for name, (_, told_ms) in self._told.items():
            if room <= 0 or now_ms - told_ms < TOLD_AGAIN_MS:
                break
            if name in offers and name not in news:
                news[name] = offers[name]
                room -= 1
        return tuple(news.values())


class ClusterAssembly:
    """Puts the state together. What of it is missed is right again when it is told the next time."""

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self._nodes: dict[str, NodeState] = {}
        self._members: ClusterMembers | None = None
        self._missing: frozenset[str] = frozenset()
        """Nodes that are there, but nothing was heard about them."""

    def take(self, message: NodeState | ClusterMembers) -> ClusterState | None:
        """Take what came on a topic. Return the state at the end of a moment, or once nothing is missing.

        The first state waits for all nodes of it, but no longer than until the next moment.
        """
        if isinstance(message, NodeState):
            return self._take_node(message)
        is_first = self._members is None
        self._members = message
        self._nodes = {name: self._nodes[name] for name in message.nodes if name in self._nodes}
        self._missing = frozenset(message.nodes) - self._nodes.keys()
        return None if is_first and self._missing else self._state(message)

    def _take_node(self, node: NodeState) -> ClusterState | None:
        if node.node in self._nodes or len(self._nodes) < MAX_NODES:
            self._nodes[node.node] = node
        if self._members is None or node.node not in self._missing:
            return None
        self._missing -= {node.node}
        return None if self._missing else self._state(self._members)

    def _state(self, members: ClusterMembers) -> ClusterState:
        loads = {load.node: load for load in members.busy}
        return ClusterState(
            sequence=members.sequence,
            hop_ms=members.hop_ms,
            broker_megabytes_per_second=members.broker_megabytes_per_second,
            nodes=tuple(
                [_loaded(self._nodes[name], loads.get(name)) for name in members.nodes if name in self._nodes]
            ),
        )


def _load(node: NodeState) -> NodeLoad:
    return NodeLoad(node=node.node, **{name: getattr(node, name) for name in _LOAD})


def _loaded(node: NodeState, load: NodeLoad | None) -> NodeState:
    """Return a node with how busy it is."""
    return node if load is None else node.model_copy(update={name: getattr(load, name) for name in _LOAD})
