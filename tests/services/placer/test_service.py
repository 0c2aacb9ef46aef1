"""The placer against real brokers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from splitplace.messages.application import Application
from splitplace.messages.cluster import NodeState
from splitplace.messages.task import TaskPlaced
from splitplace.messages.topics import (
    APPLICATION,
    JOB_DECIDED,
    JOB_FINISHED,
    JOB_PLACED,
    NODE_PREPARE,
    PLACER,
    SERVICE_STATUS,
)
from splitplace.policies.placement import PlacementName, placement_policy
from splitplace.policies.placement.daso import LEAST_SAMPLES
from splitplace.policies.placement.loading import LoadingName
from splitplace.services.placer.service import Placer
from splitplace.services.placer.settings import PlacerSettings
from tests.support.cluster_parts import publish_cluster
from tests.support.examples import all_of, application, chain, fragment, node, snapshot, three_ways
from tests.support.messages import decided, finished
from tests.support.observer import Observer
from tests.support.running import running
from tests.support.waiting import PATIENCE_S, every, until

APP: Application = three_ways(image_ms=10)


class PlacerObserver(Observer):
    """Plays splitter, gateway and monitor."""

    def __init__(self, url: str) -> None:
        super().__init__(url, JOB_PLACED, NODE_PREPARE, SERVICE_STATUS)

    async def describe(self, application: Application, *nodes: NodeState) -> None:
        """Publish a catalogue entry and the state of the cluster."""
        await self.publish(APPLICATION, application, application=application.name)
        await publish_cluster(self.bus, snapshot(*nodes))

    async def ask(self, task: str, attempt: int = 1, application: str = APP.name) -> TaskPlaced:
        """Decide a task and wait for its placement, which may have no stages."""
        await self.publish(JOB_DECIDED, decided(task, attempt=attempt, application=application))
        return await self.until(JOB_PLACED, lambda placed: (placed.task, placed.attempt) == (task, attempt))

    async def until_placed(self, task: str, on: str = "", application: str = APP.name) -> TaskPlaced:
        """Ask until stages come: catalogue and cluster reach the placer on topics of their own."""
        attempt = 0
        async with asyncio.timeout(PATIENCE_S):
            async for _ in every(0.02):
                attempt += 1
                placed = await self.ask(task, attempt, application)
                if placed.stages and on in ("", placed.stages[0].node):
                    return placed
        raise TimeoutError


@contextlib.asynccontextmanager
async def observed(
    url: str,
    *,
    warm_up: bool = False,
    state_dir: Path | None = None,
    placement: PlacementName = "earliest-finish",
    replicas: int = 2,
    loading: LoadingName = "rarest",
) -> AsyncIterator[PlacerObserver]:
    """An observer of a running placer."""
    settings = PlacerSettings(
        broker=url,
        warm_up=warm_up,
        replicas=replicas,
        state_dir=state_dir,
        placement=placement,
        loading=loading,
        loading_s=0.2,
        save_every_s=0.05,
        fine_tuning_s=0.05,
    )
    observer = PlacerObserver(url)
    async with observer.bus:
        await observer.bus.connected()
        async with running(Placer(settings).run()):
            await observer.until(SERVICE_STATUS, lambda status: status.online and status.service == PLACER)
            yield observer


async def test_a_decided_task_is_placed_and_nodes_are_told_to_prepare(broker_url: str) -> None:
    async with observed(broker_url) as observer:
        await observer.describe(APP, node("a"), node("b", speed=0.1))
        placed = await observer.until_placed("c.1")
        assert [stage.node for stage in placed.stages] == ["a"]
        hint = await observer.until(NODE_PREPARE)
        assert hint.node == "a"
        assert hint.fragments == (APP.variant("whole").stages[0].fragment,)


async def test_nodes_with_free_memory_are_told_what_to_load_before_any_task_comes(broker_url: str) -> None:
    async with observed(broker_url, warm_up=True) as observer:
        await observer.describe(APP, node("a"), node("b", loaded=all_of(APP)))
        hint = await observer.until(NODE_PREPARE)
        assert [hint.node for hint in observer.heard(NODE_PREPARE)] == ["a"]
        assert set(hint.fragments) == set(all_of(APP))


async def test_nodes_are_told_to_load_what_is_asked_for_in_place_of_what_is_not(broker_url: str) -> None:
    other = fragment("other", megabytes=3)
    never_asked = application([other], [chain("whole", [other])], name="other")
    async with observed(broker_url, warm_up=True, loading="demand") as observer:
        await observer.publish(APPLICATION, never_asked, application=never_asked.name)
        await observer.describe(APP, node("a", megabytes=3.5, loaded=[other.sha256]))
        await observer.until_placed("c.1")
        hint = await observer.until(NODE_PREPARE, lambda hint: bool(hint.gives_way))
        assert (hint.node, hint.when_idle, hint.gives_way) == ("a", True, (other.sha256,))
        assert set(hint.fragments) <= set(all_of(APP))


async def test_the_catalogue_and_the_cluster_are_known_again_after_a_restart(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.describe(APP, node("a", loaded=all_of(APP)))
    async with observed(mosquitto_url) as observer:
        placed = await observer.until_placed("c.1")
        assert [stage.node for stage in placed.stages] == ["a"]
        assert observer.heard(NODE_PREPARE) == []  # all is loaded


async def test_without_a_feasible_node_the_gateway_is_told_why(mosquitto_url: str) -> None:
    async with observed(mosquitto_url) as observer:
        placed = await observer.ask("c.1")
        assert placed.stages == ()
        assert placed.reason == "toy with variant whole is not known"


async def test_finished_tasks_free_their_nodes(mosquitto_url: str) -> None:
    slow = three_ways(image_ms=1000)
    async with observed(mosquitto_url, replicas=1) as observer:
        await observer.describe(slow, *(node(name, loaded=all_of(slow)) for name in ("a", "b")))
        assert (await observer.until_placed("c.1")).stages[0].node == "a"
        assert (await observer.until_placed("c.2")).stages[0].node == "b"
        await observer.publish(JOB_FINISHED, finished("c.2"))
        await observer.until_placed("c.3", on="b")  # the end and the decision come on topics of their own


async def test_nodes_share_a_stage_unless_the_setting_says_one(mosquitto_url: str) -> None:
    slow = three_ways(image_ms=1000)
    for replicas in (2, 1):
        async with observed(mosquitto_url, replicas=replicas) as observer:
            await observer.describe(slow, *(node(name, loaded=all_of(slow)) for name in "abc"))
            placed = await observer.until_placed(f"c.{replicas}")
            assert len(placed.stages) == len(placed.nodes) == replicas


async def test_an_empty_or_broken_catalogue_entry_does_not_take_the_place_of_the_one_known(
    mosquitto_url: str,
) -> None:
    async with observed(mosquitto_url) as observer:
        await observer.describe(APP, node("a"))
        await observer.until_placed("c.1")
        await observer.publish_raw(APPLICATION.at(application=APP.name), b"not json", retain=True)
        await observer.until_placed("c.2")
        await observer.publish_raw(APPLICATION.at(application=APP.name), b"", retain=True)
        sentinel = APP.model_copy(update={"name": "sentinel"})
        await observer.publish(APPLICATION, sentinel, application=sentinel.name)
        await observer.until_placed("c.3", application=sentinel.name)
        assert (await observer.ask("c.4")).stages


async def test_what_daso_learns_beside_its_decisions_survives_a_restart(
    broker_url: str, tmp_path: Path
) -> None:
    saved = tmp_path / "placer.json"
    shipped = placement_policy("daso").state()
    async with observed(broker_url, state_dir=tmp_path, placement="daso") as observer:
        await observer.describe(APP, node("a", loaded=all_of(APP)), node("b"))
        for number in range(LEAST_SAMPLES + 5):
            await observer.until_placed(f"c.{number}")
            await observer.publish(JOB_FINISHED, finished(f"c.{number}", attempt=99))
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
        await observer.describe(APP, node("a", loaded=all_of(APP)))
        assert (await observer.until_placed("c.1")).policy == "daso"
