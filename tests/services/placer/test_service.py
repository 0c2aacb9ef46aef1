"""The placer against real brokers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from splitplace.bus.connection import Bus, Received
from splitplace.bus.settings import Settings
from splitplace.messages.application import Application
from splitplace.messages.cluster import PrepareFragments, ServiceStatus
from splitplace.messages.task import TaskPlaced
from splitplace.messages.topics import (
    APPLICATION,
    CLUSTER_STATE,
    JOB_DECIDED,
    JOB_FINISHED,
    JOB_PLACED,
    NODE_PREPARE,
    PLACER,
    SERVICE_STATUS,
)
from splitplace.policies.placement import PlacementName, placement_policy
from splitplace.policies.placement.daso import LEAST_SAMPLES
from splitplace.services.placer.service import PlacerSettings, serve
from tests.services.placer.test_core import decided, finished
from tests.support.examples import all_of, node, snapshot, three_ways
from tests.support.waiting import until

APP: Application = three_ways(image_ms=10)


class Observer:
    """A client that plays splitter, gateway and monitor, and listens to what the placer says."""

    def __init__(self, url: str) -> None:
        self.bus = Bus(Settings(broker=url), "observer")
        self.placed: list[TaskPlaced] = []
        self.prepare: list[PrepareFragments] = []
        self.online = False
        self.bus.subscribe(JOB_PLACED, self._on_placed)
        self.bus.subscribe(NODE_PREPARE, self._on_prepare)
        self.bus.subscribe(SERVICE_STATUS, self._on_status, service=PLACER)

    async def _on_placed(self, received: Received[TaskPlaced]) -> None:
        self.placed.append(received.message)

    async def _on_prepare(self, received: Received[PrepareFragments]) -> None:
        self.prepare.append(received.message)

    async def _on_status(self, received: Received[ServiceStatus]) -> None:
        self.online = received.message.online

    async def until_placed(self, task: str) -> TaskPlaced:
        """Ask until stages come: catalogue and cluster reach the placer by topics of their own."""
        for attempt in range(1, 100):
            await self.bus.publish(JOB_DECIDED, decided(task, attempt=attempt))
            await until(lambda: self.placed and self.placed[-1].task == task)
            if self.placed[-1].stages:
                return self.placed[-1]
            self.placed.clear()
            await asyncio.sleep(0.02)
        raise TimeoutError


@contextlib.asynccontextmanager
async def observed(
    url: str,
    *,
    warm_up: bool = False,
    state_dir: Path | None = None,
    placement: PlacementName = "earliest-finish",
) -> AsyncIterator[Observer]:
    """An observer of a running placer."""
    settings = PlacerSettings(
        broker=url,
        warm_up=warm_up,
        state_dir=state_dir,
        placement=placement,
        save_every_s=0.05,
        fine_tuning_s=0.05,
    )
    observer = Observer(url)
    async with observer.bus:
        await observer.bus.connected()
        task = asyncio.create_task(serve(settings))
        try:
            await until(lambda: observer.online)
            yield observer
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_a_decided_task_is_placed_and_nodes_are_told_to_prepare(broker_url: str) -> None:
    async with observed(broker_url) as observer:
        await observer.bus.publish(APPLICATION, APP, application=APP.name)
        await observer.bus.publish(CLUSTER_STATE, snapshot(node("a"), node("b", speed=0.1)))
        placed = await observer.until_placed("c.1")
        assert [stage.node for stage in placed.stages] == ["a"]
        await until(lambda: observer.prepare)
        assert observer.prepare[0].node == "a"
        assert observer.prepare[0].fragments == (APP.variant("whole").stages[0].fragment,)


async def test_nodes_with_free_memory_are_told_what_to_load_before_any_task_comes(broker_url: str) -> None:
    async with observed(broker_url, warm_up=True) as observer:
        await observer.bus.publish(APPLICATION, APP, application=APP.name)
        await observer.bus.publish(CLUSTER_STATE, snapshot(node("a"), node("b", loaded=all_of(APP))))
        await until(lambda: observer.prepare)
        assert [hint.node for hint in observer.prepare] == ["a"]
        assert set(observer.prepare[0].fragments) == set(all_of(APP))


async def test_the_catalogue_and_the_cluster_are_known_again_after_a_restart(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.bus.publish(APPLICATION, APP, application=APP.name)
        await observer.bus.publish(CLUSTER_STATE, snapshot(node("a", loaded=all_of(APP))))
    async with observed(mosquitto_url) as observer:
        placed = await observer.until_placed("c.1")
        assert [stage.node for stage in placed.stages] == ["a"]
        assert observer.prepare == []  # all is loaded


async def test_without_a_feasible_node_the_gateway_is_told_why(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.bus.publish(JOB_DECIDED, decided("c.1"))
        await until(lambda: observer.placed)
        assert observer.placed[0].stages == ()
        assert observer.placed[0].reason == "toy with variant whole is not known"


async def test_finished_tasks_free_their_nodes(mosquitto_url: str) -> None:
    slow = three_ways(image_ms=1000)
    async with observed(mosquitto_url) as observer:
        await observer.bus.publish(APPLICATION, slow, application=slow.name)
        await observer.bus.publish(
            CLUSTER_STATE, snapshot(*(node(name, loaded=all_of(slow)) for name in ("a", "b")))
        )
        assert (await observer.until_placed("c.1")).stages[0].node == "a"
        assert (await observer.until_placed("c.2")).stages[0].node == "b"
        await observer.bus.publish(JOB_FINISHED, finished("c.2"))
        await asyncio.sleep(0.1)  # the end and the next decision come on topics of their own
        assert (await observer.until_placed("c.3")).stages[0].node == "b"


async def test_an_empty_or_broken_catalogue_entry_does_not_take_the_place_of_the_one_known(
    mosquitto_url: str,
) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.bus.publish(APPLICATION, APP, application=APP.name)
        await observer.bus.publish(CLUSTER_STATE, snapshot(node("a")))
        await observer.until_placed("c.1")
        await observer.bus.publish_raw(APPLICATION.at(application=APP.name), b"not json", retain=True)
        await observer.until_placed("c.2")
        await observer.bus.publish_raw(APPLICATION.at(application=APP.name), b"", retain=True)
        await asyncio.sleep(0.1)
        assert (await observer.until_placed("c.3")).stages


async def test_what_daso_learns_beside_its_decisions_survives_a_restart(
    broker_url: str, tmp_path: Path
) -> None:
    saved = tmp_path / "placer.json"
    shipped = placement_policy("daso").state()
    async with observed(broker_url, state_dir=tmp_path, placement="daso") as observer:
        await observer.bus.publish(APPLICATION, APP, application=APP.name)
        await observer.bus.publish(CLUSTER_STATE, snapshot(node("a", loaded=all_of(APP)), node("b")))
        for number in range(LEAST_SAMPLES + 5):
            await observer.until_placed(f"c.{number}")
            await observer.bus.publish(JOB_FINISHED, finished(f"c.{number}", attempt=99))
        await until(saved.exists)
    learnt = json.loads(saved.read_text())
    assert learnt["policy"] == "daso"
    assert learnt["learnt"].keys() == shipped.keys()
    assert learnt["learnt"] != shipped
    async with observed(broker_url, state_dir=tmp_path, placement="daso"):
        pass
    assert json.loads(saved.read_text()) == learnt


async def test_a_broken_memory_does_not_stop_the_placer(broker_url: str, tmp_path: Path) -> None:
    (tmp_path / "placer.json").write_text('{"version": 1, "policy": "daso", "learnt": {"w1": "nonsense"}}')
    async with observed(broker_url, state_dir=tmp_path, placement="daso") as observer:
        await observer.bus.publish(APPLICATION, APP, application=APP.name)
        await observer.bus.publish(CLUSTER_STATE, snapshot(node("a", loaded=all_of(APP))))
        assert (await observer.until_placed("c.1")).policy == "daso"
