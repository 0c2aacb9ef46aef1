"""Tracks which nodes exist and which of them are online. Pure: messages and times in, views out.

A node has **joined** when its retained status says online and its info, with the same boot id, is known. It
is **offline** as soon as its last will or goodbye comes, or after `silent_after_ms` without a heartbeat. A
later heartbeat ends silence. After a last will only a new status counts, because a heartbeat may be overtaken
by the will of the process that sent it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState, NodeInfo, NodeState, NodeStatus, NodeVitals
from splitplace.messages.limits import MAX_NODES
from splitplace.messages.metrics import ClusterMetrics, NodeMetrics
from splitplace.messages.task import TaskFinished, TaskPlaced
from splitplace.policies.scoring import jain_fairness
from splitplace.services.resource_monitor.hops import HopMeter
from splitplace.services.resource_monitor.work import WorkWatch

SILENT_AFTER_MS = 2500.0
FORGET_AFTER_MS = 600_000.0
LINK_MEGABYTES_PER_SECOND = 100.0

OWN_ABSENCE_MS = 1000.0
"""Pause between two calls of `tick` after which the monitor itself was absent: no node is silent for that."""

_SUPERSEDED_FOR_MS = 30_000.0
_MAX_SUPERSEDED = 8

_MOST_MS = 1e12
_MOST_JOULES = 1e18
"""Limits of the messages. Sums are cut off there: nodes may report any figures."""


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
    """Earlier boot ids and when they were superseded; their messages are late."""

    @property
    def online(self) -> bool:
        return self.announced and not self.silent and self.info is not None and self.info.boot == self.boot

    @property
    def score(self) -> float:
        """What it says of its speed, newest first; 0 if unknown."""
        if self.info is None:
            return 0.0
        return self.info.score if self.info.speed is None else self.info.speed.score

    @property
    def membership(self) -> tuple[bool, str | None]:
        """Whether it is online, and its boot id; a change is published at once."""
        return self.online, self.boot if self.online else None


class ResourceMonitorCore:
    """All known nodes. Methods that return a bool tell whether members changed."""

    def __init__(
        self,
        *,
        silent_after_ms: float = SILENT_AFTER_MS,
        forget_after_ms: float = FORGET_AFTER_MS,
        link_megabytes_per_second: float = LINK_MEGABYTES_PER_SECOND,
        broker_megabytes_per_second: float | None = None,
        max_nodes: int = MAX_NODES,
    ) -> None:
        """An empty cluster.

        Args:
            silent_after_ms: time without a heartbeat after which a node is offline.
            forget_after_ms: time after which an offline node is forgotten.
            link_megabytes_per_second: assumed speed of a link that was not measured yet.
            broker_megabytes_per_second: speed of the broker's link; None = it never limits a transfer.
            max_nodes: beyond it, the node that is offline longest is forgotten; if all are online, new nodes
                are ignored.
        """
        self._silent_after_ms = silent_after_ms
        self._forget_after_ms = forget_after_ms
        self._link = link_megabytes_per_second
        self._broker = broker_megabytes_per_second
        self._max_nodes = max_nodes
        self._nodes: dict[str, _Node] = {}
        self._ticked_ms: float | None = None
        self._work = WorkWatch()
        self._hops = HopMeter()
        self._stalled: frozenset[str] = frozenset()

    # --- stimuli ---------------------------------------------------------------------------------------

    def status(self, status: NodeStatus, now_ms: float) -> bool:
        """Note a node's status or last will."""
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
        """Note what a node offers. It is retained, so it does not tell whether the node lives."""
        node = self._find(info.node, now_ms)
        if node is None or _is_superseded(node, info.boot, now_ms):
            return False
        before = node.membership
        node.info = info
        return node.membership != before

    def vitals(self, vitals: NodeVitals, now_ms: float) -> bool:
        """Note a heartbeat."""
        node = self._find(vitals.node, now_ms)
        if node is None:
            return False
        before = node.membership
        if not self._is_current(node, vitals.boot, now_ms):
            return False
        node.vitals = vitals
        node.silent = False
        node.heard_ms = now_ms
        self._work.vitals(vitals, now_ms)
        return node.membership != before

    def add_application(self, application: Application) -> None:
        """Note a catalogue entry: it tells which stage reads which."""
        self._work.add_application(application)
        self._hops.add_application(application)

    def placed(self, placed: TaskPlaced, now_ms: float) -> None:
        """Note which nodes were given work."""
        self._work.placed(placed, now_ms)
        self._hops.placed(placed)

    def finished(self, finished: TaskFinished, now_ms: float) -> None:
        """Note how a task ended."""
        self._work.finished(finished, now_ms)
        took_part = {report.node for report in finished.stages} & self._nodes.keys()
        states = {name: self._node_state(name, now_ms) for name in took_part}
        self._hops.finished(finished, {name: state for name, state in states.items() if state is not None})

    def forget_placements(self) -> None:
        """Blame no node for the work under way: a service or the broker was away."""
        self._work.forget_placements()

    def forget(self, name: str) -> None:
        """Forget a node whose retained status was cleared, if it is offline.

        A node that is online is kept: an empty message is easily sent by mistake.
        """
        node = self._nodes.get(name)
        if node is not None and not node.online:
            self._delete(name)

    # --- time ------------------------------------------------------------------------------------------

    def tick(self, now_ms: float) -> bool:
        """Notice silent and stalled nodes. Call it often, but only while connected (see `OWN_ABSENCE_MS`)."""
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
                self._delete(name)
        self._work.judge(now_ms)
        stalled = frozenset(self.stalled(now_ms))
        changed |= stalled != self._stalled
        self._stalled = stalled
        return changed

    def stalled(self, now_ms: float) -> dict[str, str]:
        """Return the nodes that are online and do not compute, with the reasons."""
        reasons = {
            name: self._work.stalled(name, now_ms) for name, node in self._nodes.items() if node.online
        }
        return {name: reason for name, reason in reasons.items() if reason}

    # --- views -----------------------------------------------------------------------------------------

    def cluster(self, sequence: int, now_ms: float) -> ClusterState:
        """Return the state of all nodes whose info is known, by name."""
        least = min([node.score for node in self._nodes.values() if node.online], default=0.0)
        return ClusterState(
            sequence=sequence,
            hop_ms=self._hops.hop_ms,
            broker_megabytes_per_second=self._broker,
            nodes=tuple(
                self._state(name, node, node.info, now_ms, least)
                for name, node in sorted(self._nodes.items())
                if node.info is not None
            ),
        )

    def node_metrics(self) -> Iterator[NodeMetrics]:
        """Metrics of every node that has joined once; of an offline node, its last ones."""
        for name, node in self._nodes.items():
            if node.info is not None and node.vitals is not None:
                vitals, link, speed = node.vitals, node.info.link, node.info.speed
                yield NodeMetrics(
                    node=name,
                    online=node.online,
                    score=node.score,
                    threads=speed.threads if speed else 1,
                    cpu_ratio=vitals.cpu_ratio,
                    resident_bytes=vitals.resident_bytes,
                    loaded_bytes=vitals.loaded_bytes,
                    mapped_bytes=vitals.mapped_bytes,
                    memory_budget_bytes=node.info.memory_budget_bytes,
                    queue_length=vitals.queue_length,
                    queue_ms=vitals.queue_ms,
                    executed=vitals.executed,
                    dropped=vitals.dropped,
                    sent_bytes=vitals.sent_bytes,
                    received_bytes=vitals.received_bytes,
                    up_megabytes_per_second=link.up_megabytes_per_second,
                    down_megabytes_per_second=link.down_megabytes_per_second,
                    round_trip_ms=link.round_trip_ms,
                    temperature_celsius=vitals.temperature_celsius,
                    throttled=vitals.throttled,
                    energy_joules=vitals.energy_joules,
                )

    def cluster_metrics(self) -> ClusterMetrics:
        """Return metrics over all nodes."""
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
        """Return a node, new if it was unknown; None if there is no room for it."""
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
        self._delete(min(offline, key=lambda name: self._nodes[name].heard_ms))
        return True

    def _delete(self, name: str) -> None:
        del self._nodes[name]
        self._work.forget(name)

    @staticmethod
    def _is_current(node: _Node, boot: str, now_ms: float) -> bool:
        """Whether a boot id is the node's newest. An unknown one supersedes the one before."""
        if boot == node.boot:
            return True
        if _is_superseded(node, boot, now_ms):
            return False
        if node.boot is not None:
            node.superseded[node.boot] = now_ms
        node.boot, node.announced, node.vitals = boot, False, None
        return True

    def _node_state(self, name: str, now_ms: float) -> NodeState | None:
        node = self._nodes[name]
        return None if node.info is None else self._state(name, node, node.info, now_ms, node.info.score)

    def _state(self, name: str, node: _Node, info: NodeInfo, now_ms: float, least_score: float) -> NodeState:
        """Return the view of a node; where its score is not trusted, it counts as the slowest of all."""
        vitals, link, speed = node.vitals, info.link, info.speed
        score = node.score if self._work.is_trusted(name) else min(node.score, least_score)
        return NodeState(
            node=name,
            boot=node.boot or info.boot,
            online=node.online,
            silent_ms=max(0.0, now_ms - node.heard_ms),
            score=score,
            threads=speed.threads if speed else 1,
            together=speed.together if speed else 1.0,
            memory_budget_bytes=info.memory_budget_bytes,
            loaded=info.loaded,
            prepared=info.prepared,
            mapped_bytes=vitals.mapped_bytes if vitals else 0,
            queue_ms=vitals.queue_ms if vitals else 0.0,
            queue_length=vitals.queue_length if vitals else 0,
            cpu_ratio=vitals.cpu_ratio if vitals else 0.0,
            link_megabytes_per_second=_known(link.down_megabytes_per_second, self._link),
            up_megabytes_per_second=link.up_megabytes_per_second,
            round_trip_ms=_known(link.round_trip_ms, 0.0),
            timings=info.timings,
            load_ms=info.load_ms,
            load_ms_per_megabyte=info.load_ms_per_megabyte,
            stored=tuple([each for each in info.stored if each not in info.loaded]),
            map_ms=info.map_ms,
            loads=vitals.loads if vitals else (),
            stalled=self._work.stalled(name, now_ms)[:1000] if node.online else "",
            trouble=vitals.trouble if vitals else "",
        )


def _known(measured: float | None, assumed: float) -> float:
    return assumed if measured is None else measured


def _is_superseded(node: _Node, boot: str, now_ms: float) -> bool:
    """Whether a boot id is known to be an earlier one.

    Boot ids are random, so superseded ones are remembered. Not for ever: messages of two boots that overtook
    each other must not shut out the living process.
    """
    for earlier, since_ms in list(node.superseded.items()):
        if now_ms - since_ms >= _SUPERSEDED_FOR_MS or len(node.superseded) > _MAX_SUPERSEDED:
            del node.superseded[earlier]
    return boot in node.superseded
