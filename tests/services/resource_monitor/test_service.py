"""The resource monitor against real brokers."""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator

from splitplace.bus.connection import Bus, RawReceived, Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import Broker
from splitplace.messages.cluster import ClusterState
from splitplace.messages.metrics import ClusterMetrics
from splitplace.messages.topics import (
    CLUSTER_STATE,
    METRICS_CLUSTER,
    METRICS_NODE,
    NODE_INFO,
    NODE_STATUS,
    NODE_VITALS,
)
from splitplace.services.resource_monitor.service import ResourceMonitorSettings, serve
from tests.services.resource_monitor.test_core import FIRST, SECOND, info, status, vitals
from tests.support.waiting import until


class Observer:
    """A client that plays nodes and listens to what the monitor says."""

    def __init__(self, url: str) -> None:
        self.bus = Bus(Settings(broker=url), "observer")
        self.states: list[ClusterState] = []
        self.cluster: list[ClusterMetrics] = []
        self.metrics: dict[str, bytes] = {}
        self.bus.subscribe(CLUSTER_STATE, self._on_state)
        self.bus.subscribe(METRICS_CLUSTER, self._on_cluster)
        self.bus.subscribe_raw(METRICS_NODE, self._on_metrics)

    async def _on_state(self, received: Received[ClusterState]) -> None:
        self.states.append(received.message)

    async def _on_cluster(self, received: Received[ClusterMetrics]) -> None:
        self.cluster.append(received.message)

    async def _on_metrics(self, received: RawReceived) -> None:
        self.metrics[received.parameters["node"]] = received.payload

    @property
    def online(self) -> dict[str, str]:
        """Boot ids of the nodes that are online by the last state."""
        return {node.node: node.boot for node in self.states[-1].nodes if node.online} if self.states else {}

    async def join(self, name: str, boot: str = FIRST) -> None:
        """Say what a node says when it starts."""
        await self.bus.publish(NODE_STATUS, status(name, boot))
        await self.bus.publish(NODE_INFO, info(name, boot))
        await self.bus.publish(NODE_VITALS, vitals(name, boot))


@contextlib.asynccontextmanager
async def monitor(url: str) -> AsyncIterator[None]:
    """A running monitor."""
    task = asyncio.create_task(serve(ResourceMonitorSettings(broker=url)))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def observed(url: str) -> AsyncIterator[Observer]:
    """An observer of a running monitor that has said its first word."""
    observer = Observer(url)
    async with observer.bus, monitor(url):
        await until(lambda: observer.states)
        yield observer


async def test_joins_wills_and_restarts_are_told_at_once(broker_url: str) -> None:
    seconds: list[float] = []
    async with observed(broker_url) as observer:
        for name in ("n1", "n2", "n3"):
            await observer.join(name)
            seconds.append(await until(lambda: name in observer.online))  # noqa: B023 - awaited here
            await observer.join(name, SECOND)
            seconds.append(await until(lambda: observer.online.get(name) == SECOND))  # noqa: B023
            await observer.bus.publish(NODE_STATUS, status(name, SECOND, online=False))
            seconds.append(await until(lambda: name not in observer.online))  # noqa: B023
    assert statistics.median(seconds) < 0.2, "heartbeats alone are told every 0.5 s"


async def test_a_silent_node_is_declared_dead_within_three_seconds(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.join("n1")
        await until(lambda: observer.online == {"n1": FIRST})
        seconds = await until(lambda: observer.online == {})
        assert 2.0 < seconds < 3.0


async def test_heartbeats_are_passed_on_twice_a_second_and_as_metrics(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.join("n1")
        for beat in range(12):
            await observer.bus.publish(NODE_VITALS, vitals("n1", queue_ms=float(beat)))
            await asyncio.sleep(0.1)
        seconds = await until(lambda: observer.states[-1].nodes[0].queue_ms == 11.0)
        assert seconds < 1.0
        await until(lambda: b'"queue_ms":11.0' in observer.metrics.get("n1", b""))
        await until(lambda: observer.cluster and observer.cluster[-1].online == 1)
        assert len(observer.states) < 10
        sequences = [state.sequence for state in observer.states]
        assert sequences == sorted(set(sequences))


async def test_the_state_is_told_every_two_seconds_when_nothing_happens(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        await asyncio.sleep(0.6)
        before = len(observer.states)
        seconds = await until(lambda: len(observer.states) > before)
        assert seconds < 2.6


async def test_a_monitor_that_starts_later_learns_what_nodes_have_retained_before_it_speaks(
    broker_url: str,
) -> None:
    observer = Observer(broker_url)
    async with observer.bus:
        for number in range(20):
            await observer.join(f"n{number}")
        async with monitor(broker_url):
            await until(lambda: observer.states)
            assert len(observer.states[0].nodes) == 20
            assert len(observer.online) == 20


async def test_a_node_taken_away_for_good_leaves_no_metrics_behind(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.join("n1")
        await until(lambda: observer.metrics.get("n1"))
        await observer.bus.publish(NODE_STATUS, status("n1", online=False))
        await until(lambda: not observer.online)
        await observer.bus.publish_raw(NODE_STATUS.at(node="n1"), b"", retain=True)
        await until(lambda: observer.metrics["n1"] == b"")
        await until(lambda: observer.states[-1].nodes == ())


async def test_noise_and_forged_messages_change_nothing(mosquitto_url: str) -> None:
    forged = status("another").model_dump_json().encode()
    async with observed(mosquitto_url) as observer:
        for topic in (NODE_STATUS, NODE_INFO, NODE_VITALS):
            for payload in (b"\xff", b"{}", b"[]", forged, b'{"node":"n1"}', b"0" * 300_000):
                await observer.bus.publish_raw(topic.at(node="n1"), payload)
        await observer.join("n2")
        await until(lambda: observer.online == {"n2": FIRST})
        assert [node.node for node in observer.states[-1].nodes] == ["n2"]


async def test_after_a_restart_of_the_broker_state_and_metrics_are_retained_again(
    broker: Broker,
) -> None:
    async with observed(broker.url) as observer:
        await observer.join("n1")
        await until(lambda: observer.metrics.get("n1"))
        broker.kill()
        observer.states.clear()
        observer.metrics.clear()
        broker.start()
        await until(lambda: observer.online == {"n1": FIRST}, 10.0)
        await until(lambda: observer.metrics.get("n1"), 10.0)


async def test_a_cluster_that_starts_together_is_told_in_few_messages(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        before = len(observer.states)
        names = [f"n{number}" for number in range(100)]
        await asyncio.gather(*(observer.bus.publish(NODE_STATUS, status(name)) for name in names))
        await asyncio.gather(*(observer.bus.publish(NODE_INFO, info(name)) for name in names))
        await until(lambda: len(observer.online) == 100)
        assert len(observer.states) - before < 50
