"""The resource monitor against real brokers."""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator

import pytest

from splitplace.bus.cluster import subscribe_cluster
from splitplace.commands.processes.broker import Broker
from splitplace.messages.cluster import ClusterState, ServiceStatus
from splitplace.messages.topics import (
    AVAILABILITY_SYSTEM,
    CLUSTER_NODE,
    METRICS_CLUSTER,
    METRICS_NODE,
    NODE_INFO,
    NODE_STATUS,
    NODE_VITALS,
    RESOURCE_MONITOR,
    SERVICE_STATUS,
    SERVICES,
)
from splitplace.services.resource_monitor.service import ResourceMonitor
from splitplace.services.resource_monitor.settings import ResourceMonitorSettings
from tests.support.examples import node
from tests.support.messages import BOOTS, node_info, node_status, node_vitals
from tests.support.observer import Observer
from tests.support.running import running
from tests.support.waiting import every, until

FIRST, SECOND, _ = BOOTS


class MonitorObserver(Observer):
    """Plays nodes and listens to what the monitor publishes."""

    def __init__(self, url: str, identifier: str = "observer") -> None:
        super().__init__(url, METRICS_CLUSTER, raw=(METRICS_NODE,), identifier=identifier)
        self.states: list[ClusterState] = []
        """All cluster states so far."""
        subscribe_cluster(self.bus, self.states.append)

    @property
    def online(self) -> dict[str, str]:
        """Boot ids of the nodes that are online by the last state."""
        return {node.node: node.boot for node in self.states[-1].nodes if node.online} if self.states else {}

    @property
    def metrics(self) -> dict[str, bytes]:
        """The newest metrics of each node; empty if they were cleared."""
        return {raw.parameters["node"]: raw.payload for raw in self.payloads(METRICS_NODE)}

    async def join(self, name: str, boot: str = FIRST) -> None:
        """Say what a node says when it starts."""
        await self.publish(NODE_STATUS, node_status(name, boot))
        await self.publish(NODE_INFO, node_info(name, boot))
        await self.publish(NODE_VITALS, node_vitals(name, boot))


@contextlib.asynccontextmanager
async def observed(url: str) -> AsyncIterator[MonitorObserver]:
    """An observer of a running monitor that has published its first state."""
    observer = MonitorObserver(url)
    async with observer.bus, running(ResourceMonitor(ResourceMonitorSettings(broker=url)).run()):
        await until(lambda: observer.states)
        yield observer


@pytest.mark.serial
async def test_joins_wills_and_restarts_are_told_at_once(broker_url: str) -> None:
    seconds: list[float] = []
    async with observed(broker_url) as observer:
        for name in ("n1", "n2", "n3"):
            await observer.join(name)
            seconds.append(await until(lambda: name in observer.online))  # noqa: B023 - awaited here
            await observer.join(name, SECOND)
            seconds.append(await until(lambda: observer.online.get(name) == SECOND))  # noqa: B023
            await observer.publish(NODE_STATUS, node_status(name, SECOND, online=False))
            seconds.append(await until(lambda: name not in observer.online))  # noqa: B023
    assert statistics.median(seconds) < 0.2, "heartbeats alone are told every 0.5 s"


async def test_the_system_is_available_while_all_services_and_a_node_are_there(mosquitto_url: str) -> None:
    watcher = Observer(mosquitto_url, AVAILABILITY_SYSTEM, identifier="watcher")

    async def say(*, online: bool) -> None:
        for name in set(SERVICES) - {RESOURCE_MONITOR}:
            await watcher.publish(
                SERVICE_STATUS, ServiceStatus(service=name, boot=FIRST, online=online, software="1")
            )

    async with watcher.bus:
        async with observed(mosquitto_url) as observer:
            await say(online=True)
            assert (await watcher.until(AVAILABILITY_SYSTEM)).state == "offline"
            await observer.join("n1")
            await watcher.until(AVAILABILITY_SYSTEM, lambda said: said.state == "online")
            watcher.forget()
            await say(online=False)
            await watcher.until(AVAILABILITY_SYSTEM, lambda said: said.state == "offline")
            await say(online=True)
            await observer.join("n1")  # it was silent meanwhile
            await watcher.until(AVAILABILITY_SYSTEM, lambda said: said.state == "online")
            watcher.forget()
        assert (await watcher.until(AVAILABILITY_SYSTEM)).state == "offline", "the monitor has ended"


@pytest.mark.serial
async def test_a_silent_node_is_declared_dead_within_three_seconds(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.join("n1")
        await until(lambda: observer.online == {"n1": FIRST})
        seconds = await until(lambda: observer.online == {})
        assert 2.0 < seconds < 3.0


@pytest.mark.serial
async def test_heartbeats_are_passed_on_twice_a_second_and_as_metrics(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.join("n1")
        beats = iter(range(12))
        async for _ in every(0.1):
            beat = next(beats, None)
            if beat is None:
                break
            await observer.publish(NODE_VITALS, node_vitals("n1", queue_ms=float(beat)))
        seconds = await until(lambda: observer.states[-1].nodes[0].queue_ms == 11.0)
        assert seconds < 1.0
        await until(lambda: b'"queue_ms":11.0' in observer.metrics.get("n1", b""))
        await observer.until(METRICS_CLUSTER, lambda metrics: metrics.online == 1)
        assert len(observer.states) < 10
        sequences = [state.sequence for state in observer.states]
        assert sequences == sorted(set(sequences))


@pytest.mark.serial
async def test_the_state_is_told_every_five_seconds_when_nothing_happens(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        seconds = await until(lambda: len(observer.states) == 2, 8.0)
        assert 4.5 < seconds < 5.6


@pytest.mark.serial
async def test_heartbeats_of_idle_nodes_are_not_passed_on(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.join("n1")
        await until(lambda: observer.online == {"n1": FIRST})
        idle = node_vitals("n1", queue_length=0, queue_ms=0.0, cpu_ratio=0.01)
        await observer.publish(NODE_VITALS, idle)
        await until(lambda: observer.states[-1].nodes[0].cpu_ratio == 0.0)
        before = len(observer.states)
        beats = iter(range(20))
        async for _ in every(0.1):
            if next(beats, None) is None:
                break
            await observer.publish(NODE_VITALS, idle)
        assert len(observer.states) - before <= 1


async def test_what_an_earlier_monitor_left_of_nodes_that_are_gone_is_cleared(broker_url: str) -> None:
    left, watcher = node("ghost"), Observer(broker_url, raw=(CLUSTER_NODE,), identifier="watcher")
    async with watcher.bus:
        await watcher.publish(CLUSTER_NODE, left)
        async with observed(broker_url) as observer:
            await until(lambda: any(not raw.payload for raw in watcher.payloads(CLUSTER_NODE)))
            await observer.join("n1")
            await until(lambda: observer.online == {"n1": FIRST})
        cleared = [raw.parameters["node"] for raw in watcher.payloads(CLUSTER_NODE) if not raw.payload]
        assert cleared == ["ghost"], "what is told of a living node stays"


async def test_a_monitor_that_starts_later_learns_what_nodes_have_retained_before_it_speaks(
    broker_url: str,
) -> None:
    observer = MonitorObserver(broker_url)
    async with observer.bus:
        for number in range(20):
            await observer.join(f"n{number}")
        async with running(ResourceMonitor(ResourceMonitorSettings(broker=broker_url)).run()):
            await until(lambda: observer.states)
            assert len(observer.states[0].nodes) == 20
            assert len(observer.online) == 20


async def test_a_node_taken_away_for_good_leaves_no_metrics_behind(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.join("n1")
        await until(lambda: observer.metrics.get("n1"))
        await observer.publish(NODE_STATUS, node_status("n1", online=False))
        await until(lambda: not observer.online)
        await observer.publish_raw(NODE_STATUS.at(node="n1"), b"", retain=True)
        await until(lambda: observer.metrics["n1"] == b"")
        await until(lambda: observer.states[-1].nodes == ())
        late = MonitorObserver(mosquitto_url, "late")
        async with late.bus:
            await until(lambda: late.states)
            assert late.states[0].nodes == ()


async def test_noise_and_forged_messages_change_nothing(mosquitto_url: str) -> None:
    forged = node_status("another").model_dump_json().encode()
    async with observed(mosquitto_url) as observer:
        for topic in (NODE_STATUS, NODE_INFO, NODE_VITALS):
            for payload in (b"\xff", b"{}", b"[]", forged, b'{"node":"n1"}', b"0" * 300_000):
                await observer.publish_raw(topic.at(node="n1"), payload)
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
        observer.forget()
        broker.start()
        await until(lambda: observer.online == {"n1": FIRST}, 10.0)
        await until(lambda: observer.metrics.get("n1"), 10.0)


async def test_a_cluster_that_starts_together_is_told_in_few_messages(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        before = len(observer.states)
        names = [f"n{number}" for number in range(100)]
        await asyncio.gather(*(observer.publish(NODE_STATUS, node_status(name)) for name in names))
        await asyncio.gather(*(observer.publish(NODE_INFO, node_info(name)) for name in names))
        await until(lambda: len(observer.online) == 100)
        assert len(observer.states) - before < 50
