"""The resource monitor's shell: connects its core to the broker."""

import logging
import math
from collections.abc import Iterable

from pydantic import ValidationError

from splitplace.bus.connection import RawReceived, Received, parse
from splitplace.bus.exchange import Exchange
from splitplace.bus.service import Service, now_ms
from splitplace.messages.application import Application
from splitplace.messages.cluster import NodeInfo, NodeVitals, ServiceStatus
from splitplace.messages.cluster_parts import ClusterTeller, is_busy
from splitplace.messages.frames import FrameError
from splitplace.messages.limits import MAX_NODES
from splitplace.messages.metrics import ClusterMetrics, NodeMetrics
from splitplace.messages.task import TaskFinished, TaskPlaced
from splitplace.messages.topics import (
    APPLICATION,
    AVAILABILITY_SYSTEM,
    CLUSTER_MEMBERS,
    CLUSTER_NODE,
    JOB_FINISHED,
    JOB_PLACED,
    METRICS_CLUSTER,
    METRICS_NODE,
    NODE_INFO,
    NODE_STATUS,
    NODE_VITALS,
    RESOURCE_MONITOR,
    SERVICE_STATUS,
    SERVICES,
)
from splitplace.services.resource_monitor.core import ResourceMonitorCore
from splitplace.services.resource_monitor.settings import ResourceMonitorSettings

log = logging.getLogger(__name__)

SILENCE_CHECK_PERIOD_S = 0.1
METRICS_PERIOD_S = 1.0
STATE_PERIOD_MS = 500.0
"""Time between two cluster states while nodes are busy."""
IDLE_STATE_PERIOD_MS = 5000.0
"""Time between two cluster states while nothing changes."""
_GATHER_MS = 20.0
"""Time between two cluster states while members change: nodes that start together are published together."""
_SETTLE_MS = 300.0
"""Time until the first cluster state, while the retained messages of nodes come in: without them it would say
that no node lives."""


class ResourceMonitor:
    """Turns heartbeats into the cluster state and into metrics."""

    def __init__(self, settings: ResourceMonitorSettings, exchange: Exchange | None = None) -> None:
        """A resource monitor that does not run yet."""
        self._core = ResourceMonitorCore(
            silent_after_ms=settings.silent_after_ms,
            forget_after_ms=settings.forget_after_s * 1000,
            link_megabytes_per_second=settings.link_megabytes_per_second,
            broker_megabytes_per_second=settings.broker_megabytes_per_second,
        )
        self._teller = ClusterTeller(idle_ms=IDLE_STATE_PERIOD_MS)
        self._leftovers: set[str] = set()
        """Nodes that the broker had kept something about."""
        self._sequence = 0
        self._published_ms = math.inf
        self._state_due_ms = math.inf
        self._node_metrics: dict[str, NodeMetrics] = {}
        self._cluster_metrics: ClusterMetrics | None = None
        self._stalled: frozenset[str] = frozenset()
        self._services: dict[str, tuple[str, bool]] = {}
        """Boot id of each service, and whether it is online."""
        self._service = Service(RESOURCE_MONITOR, settings, exchange=exchange)
        self._service.on_connect(self._publish_all_again)
        self._service.every(SILENCE_CHECK_PERIOD_S, self._notice_silence, online_only=True)
        self._service.every(METRICS_PERIOD_S, self._publish_metrics, online_only=True)
        self._alarm = self._service.alarm(self._publish_state)
        self._figures = self._service.figures
        self._figures.own(METRICS_NODE)
        self._service.connection("system", availability=AVAILABILITY_SYSTEM.pattern)
        self._is_available: bool | None = None
        self._bus = self._service.bus
        self._bus.subscribe_raw(NODE_STATUS, self._on_status)
        self._bus.subscribe_at_once(NODE_INFO, self._on_info)
        self._bus.subscribe_at_once(NODE_VITALS, self._on_vitals)
        self._bus.subscribe_at_once(APPLICATION, self._on_application)
        self._bus.subscribe_at_once(JOB_PLACED, self._on_placed)
        self._bus.subscribe_at_once(JOB_FINISHED, self._on_finished)
        self._bus.subscribe_at_once(SERVICE_STATUS, self._on_service)
        self._bus.subscribe_raw(CLUSTER_NODE, self._on_own_state, others_only=True)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._service.run()

    # --- what nodes report -------------------------------------------------------------------------

    async def _on_status(self, received: RawReceived) -> None:
        """Note a node's status. Raw, because a status that was cleared arrives as an empty payload."""
        if not received.payload:
            self._core.forget(received.parameters["node"])
            return
        try:
            status = parse(NODE_STATUS, NODE_STATUS.at(**received.parameters), received.payload).message
        except (ValidationError, FrameError) as error:
            self._bus.statistics.rejected += 1
            log.debug("rejected a status of %s: %s", received.parameters["node"], error)
            return
        self._note(members_changed=self._core.status(status, now_ms()))

    def _on_info(self, received: Received[NodeInfo]) -> None:
        self._note(members_changed=self._core.info(received.message, now_ms()))

    def _on_vitals(self, received: Received[NodeVitals]) -> None:
        vitals = received.message
        members_changed = self._core.vitals(vitals, now_ms())
        if members_changed or is_busy(vitals) or self._teller.is_busy(vitals.node):
            self._note(members_changed=members_changed)

    async def _notice_silence(self) -> None:
        if self._core.tick(now_ms()):
            self._note(members_changed=True)
        stalled = self._core.stalled(now_ms())
        for node, reason in stalled.items():
            if node not in self._stalled:
                log.warning("%s beats but does not compute: %s", node, reason)
        for node in self._stalled - stalled.keys():
            log.warning("%s may compute again", node)
        self._stalled = frozenset(stalled)

    # --- what becomes of their work ----------------------------------------------------------------

    def _on_application(self, received: Received[Application]) -> None:
        self._core.add_application(received.message)

    def _on_placed(self, received: Received[TaskPlaced]) -> None:
        self._core.placed(received.message, now_ms())

    def _on_finished(self, received: Received[TaskFinished]) -> None:
        self._core.finished(received.message, now_ms())

    def _on_service(self, received: Received[ServiceStatus]) -> None:
        """Blame no node for what a service lost that went away or restarted."""
        status = received.message
        if self._services.get(status.service) != (status.boot, status.online):
            self._services[status.service] = status.boot, status.online
            self._core.forget_placements()

    # --- cluster state -----------------------------------------------------------------------------

    def _note(self, *, members_changed: bool) -> None:
        """Let the next cluster state be due: soon if members changed, else after the usual period."""
        pause_ms = _GATHER_MS if members_changed else STATE_PERIOD_MS
        self._publish_state_at(min(self._state_due_ms, self._published_ms + pause_ms))

    def _publish_state_at(self, due_ms: float) -> None:
        self._state_due_ms = due_ms
        self._alarm.set(due_ms)

    def _publish_state(self) -> None:
        """Publish what has changed, if anything has."""
        if not self._bus.is_connected:  # it is due with the next connection
            return
        self._published_ms = now_ms()
        state = self._core.cluster(self._sequence + 1, self._published_ms)
        telling = self._teller.tell(state, self._published_ms)
        if telling is not None:
            self._sequence += 1
            for node in telling.nodes:
                self._bus.send(CLUSTER_NODE, node)
            self._bus.send(CLUSTER_MEMBERS, telling.members)
            self._clear({*telling.gone, *self._leftovers})
            self._leftovers.clear()
        self._publish_state_at(self._published_ms + IDLE_STATE_PERIOD_MS)

    async def _on_own_state(self, received: RawReceived) -> None:
        """Note what an earlier process left."""
        if received.retained and received.payload and len(self._leftovers) < MAX_NODES:
            self._leftovers.add(received.parameters["node"])

    def _clear(self, names: Iterable[str]) -> None:
        """Take away what the broker has kept of nodes that are not there."""
        for name in names:
            if not self._teller.is_told(name):
                self._bus.post(CLUSTER_NODE.at(node=name), b"", retain=True)

    async def _publish_all_again(self) -> None:
        """Publish the state soon: the broker may be a new one."""
        self._core.forget_placements()
        self._teller.forget()
        self._is_available = None
        self._publish_state_at(now_ms() if self._sequence else now_ms() + _SETTLE_MS)

    # --- metrics -----------------------------------------------------------------------------------

    async def _publish_metrics(self) -> None:
        """Publish what has changed; clear the metrics of nodes that were forgotten."""
        current = {metrics.node: metrics for metrics in self._core.node_metrics()}
        for name in self._node_metrics.keys() - current.keys():
            del self._node_metrics[name]
            self._figures.clear(METRICS_NODE, node=name)
        for name, metrics in current.items():
            if self._node_metrics.get(name) != metrics:
                self._node_metrics[name] = metrics
                self._figures.publish(METRICS_NODE, metrics)
        cluster = self._core.cluster_metrics()
        if cluster != self._cluster_metrics:
            self._cluster_metrics = cluster
            self._figures.publish(METRICS_CLUSTER, cluster)
        await self._publish_availability(cluster)

    async def _publish_availability(self, cluster: ClusterMetrics) -> None:
        """Say whether the system can answer tasks."""
        services = {name for name, (_, online) in self._services.items() if online} | {RESOURCE_MONITOR}
        is_available = services >= set(SERVICES) and cluster.online > 0
        if is_available != self._is_available:
            self._is_available = is_available
            await self._service.say(AVAILABILITY_SYSTEM.pattern, online=is_available)
