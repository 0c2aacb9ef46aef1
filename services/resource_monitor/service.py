"""The resource monitor's shell: hears nodes, tells everybody who lives."""

import asyncio
import contextlib
import logging
import math
import time

from pydantic import Field, ValidationError

from splitplace.bus.connection import RawReceived, Received, parse
from splitplace.bus.service import announced, service_bus
from splitplace.bus.settings import Settings
from splitplace.messages.cluster import NodeInfo, NodeVitals
from splitplace.messages.frames import FrameError
from splitplace.messages.metrics import ClusterMetrics, NodeMetrics
from splitplace.messages.topics import (
    CLUSTER_STATE,
    METRICS_CLUSTER,
    METRICS_NODE,
    NODE_INFO,
    NODE_STATUS,
    NODE_VITALS,
    RESOURCE_MONITOR,
)
from splitplace.services.resource_monitor.core import (
    FORGET_AFTER_MS,
    LINK_MEGABYTES_PER_SECOND,
    SILENT_AFTER_MS,
    ResourceMonitorCore,
)

log = logging.getLogger(__name__)

TICK_S = 0.1
STATE_EVERY_S = 0.5
STATE_AT_LEAST_EVERY_S = 2.0
METRICS_EVERY_S = 1.0
_TOGETHER_S = 0.02
"""Membership changes so close together (a cluster that starts) are told at once."""
_SETTLE_S = 0.3
"""After a start: what nodes have retained must be heard first, or everybody would be told that none lives."""


class ResourceMonitorSettings(Settings):
    """Settings of the resource monitor."""

    silent_after_ms: float = Field(
        SILENT_AFTER_MS, ge=100, description="a node without heartbeat for so long is offline"
    )
    forget_after_s: float = Field(
        FORGET_AFTER_MS / 1000, gt=0, description="a node offline for so long is forgotten"
    )
    link_megabytes_per_second: float = Field(
        LINK_MEGABYTES_PER_SECOND, gt=0, description="assumed speed of the link of every node"
    )


class ResourceMonitor:
    """The tracker, connected."""

    def __init__(self, settings: ResourceMonitorSettings) -> None:
        self._bus = service_bus(RESOURCE_MONITOR, settings)
        self._tracker = ResourceMonitorCore(
            silent_after_ms=settings.silent_after_ms,
            forget_after_ms=settings.forget_after_s * 1000,
            link_megabytes_per_second=settings.link_megabytes_per_second,
        )
        self._sequence = 0
        self._members_changed = asyncio.Event()
        self._something_changed = False
        self._published: dict[str, NodeMetrics] = {}
        self._published_cluster: ClusterMetrics | None = None
        self._bus.subscribe_raw(NODE_STATUS, self._on_status)
        self._bus.subscribe(NODE_INFO, self._on_info)
        self._bus.subscribe(NODE_VITALS, self._on_vitals)
        self._bus.on_connect(self._say_everything_again)

    async def run(self) -> None:
        """Work until cancelled."""
        async with announced(self._bus, RESOURCE_MONITOR), asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_for_silence())
            tasks.create_task(self._publish_state())
            tasks.create_task(self._publish_metrics())

    # --- incoming ----------------------------------------------------------------------------------

    async def _on_status(self, received: RawReceived) -> None:
        """Raw, because a retained status that was cleared arrives as an empty payload."""
        if not received.payload:
            self._tracker.forget(received.parameters["node"])
            return
        try:
            status = parse(NODE_STATUS, NODE_STATUS.at(**received.parameters), received.payload).message
        except (ValidationError, FrameError) as error:
            self._bus.statistics.rejected += 1
            log.debug("rejected a status of %s: %s", received.parameters["node"], error)
            return
        self._note(members_changed=self._tracker.status(status, _now_ms()))

    async def _on_info(self, received: Received[NodeInfo]) -> None:
        self._note(members_changed=self._tracker.info(received.message, _now_ms()))

    async def _on_vitals(self, received: Received[NodeVitals]) -> None:
        self._note(members_changed=self._tracker.vitals(received.message, _now_ms()))

    async def _say_everything_again(self) -> None:
        """The broker may be a new one, with nothing retained."""
        self._published.clear()
        self._published_cluster = None
        self._note(members_changed=True)

    def _note(self, *, members_changed: bool) -> None:
        self._something_changed = True
        if members_changed:
            self._members_changed.set()

    # --- outgoing ----------------------------------------------------------------------------------

    async def _watch_for_silence(self) -> None:
        while True:
            await self._bus.connected()
            if self._tracker.tick(_now_ms()):
                self._note(members_changed=True)
            await asyncio.sleep(TICK_S)

    async def _publish_state(self) -> None:
        """At once when members change, else every half second while nodes say anything."""
        await self._bus.connected()
        await asyncio.sleep(_SETTLE_S)
        published = -math.inf
        while True:
            await self._wait_for_news(published)
            await self._bus.connected()
            self._members_changed.clear()
            self._something_changed = False
            self._sequence += 1
            published = time.monotonic()
            await self._bus.publish(CLUSTER_STATE, self._tracker.cluster(self._sequence, _now_ms()))
            await asyncio.sleep(_TOGETHER_S)

    async def _wait_for_news(self, published: float) -> None:
        while (age := time.monotonic() - published) < STATE_AT_LEAST_EVERY_S:
            if self._something_changed and age >= STATE_EVERY_S:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(STATE_EVERY_S - age, TICK_S)):
                    await self._members_changed.wait()
                    return

    async def _publish_metrics(self) -> None:
        while True:
            await asyncio.sleep(METRICS_EVERY_S)
            if not self._bus.is_connected:
                continue
            current = {metrics.node: metrics for metrics in self._tracker.node_metrics()}
            for name in self._published.keys() - current.keys():
                del self._published[name]
                await self._bus.publish_raw(METRICS_NODE.at(node=name), b"", qos=0, retain=True)
            for name, metrics in current.items():
                if self._published.get(name) != metrics:
                    self._published[name] = metrics
                    await self._bus.publish(METRICS_NODE, metrics)
            cluster = self._tracker.cluster_metrics()
            if cluster != self._published_cluster:
                self._published_cluster = cluster
                await self._bus.publish(METRICS_CLUSTER, cluster)


def _now_ms() -> float:
    return time.monotonic() * 1000


async def serve(settings: ResourceMonitorSettings) -> None:
    """Run the resource monitor until cancelled."""
    await ResourceMonitor(settings).run()
