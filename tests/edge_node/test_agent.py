"""Edge nodes on real brokers, with a tiny application whose right answers are known."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bus.assembly import TensorAssembly
from bus.broker import Broker
from bus.connection import Bus, Received
from bus.settings import Settings
from bus.store import ModelStore
from edge_node.agent import Agent
from edge_node.executor import now_ms
from edge_node.settings import NodeSettings
from messages.application import INPUT, Application, Variant
from messages.base import Message
from messages.cluster import CancelTask, NodeInfo, NodeStatus, NodeVitals, PrepareFragments, StageFailure
from messages.frames import Route, TensorHeader, decode_tensor, encode_tensor, pack, tensor_frames
from messages.limits import CHUNK_BYTES
from messages.topics import (
    AGGREGATOR_INBOX,
    APPLICATION,
    FRAGMENT_CHUNK,
    NODE_CANCEL,
    NODE_FAILURE,
    NODE_INFO,
    NODE_PREPARE,
    NODE_STATUS,
    NODE_VITALS,
    TENSOR,
)
from tests.support.repository import FragmentRepository
from tests.support.tiny_application import build_tiny_application, right_answers, tiny_images
from tests.support.waiting import until


class Outside:
    """Gateway, aggregator and resource monitor in one: sends inputs, collects what nodes say."""

    def __init__(self, settings: Settings) -> None:
        self.bus = Bus(settings, "outside")
        self.outputs: dict[tuple[str, int, str, int], tuple[TensorHeader, NDArray[Any]]] = {}
        self.order: list[tuple[str, int]] = []
        self.failures: list[StageFailure] = []
        self.statuses: list[NodeStatus] = []
        self.infos: list[NodeInfo] = []
        self.vitals: list[NodeVitals] = []
        self.duplicates = 0
        self._assembly = TensorAssembly()
        self.bus.subscribe(TENSOR, self._on_output, node=AGGREGATOR_INBOX)
        self.bus.subscribe(NODE_FAILURE, self._keep(self.failures))
        self.bus.subscribe(NODE_STATUS, self._keep(self.statuses))
        self.bus.subscribe(NODE_INFO, self._keep(self.infos))
        self.bus.subscribe(NODE_VITALS, self._keep(self.vitals))

    @staticmethod
    def _keep(seen: list[Any]) -> Callable[[Received[Any]], Any]:
        async def keep(received: Received[Message]) -> None:
            seen.append(received.message)

        return keep

    async def _on_output(self, received: Received[TensorHeader]) -> None:
        complete = self._assembly.add(received.message, received.body, now_ms())
        if complete is None:
            self.duplicates += received.message.chunks == 1
            return
        header, encoded = complete
        key = (header.task, header.attempt, header.stage, header.micro_batch)
        self.outputs[key] = (header, decode_tensor(header, encoded))
        self.order.append((header.task, header.micro_batch))

    async def send(
        self,
        route: Route,
        images: NDArray[np.uint8],
        *,
        task: str = "client.task",
        attempt: int = 1,
        micro_batch: int = 0,
        micro_batches: int = 1,
        expires_ms: float = 30_000.0,
    ) -> None:
        codec, encoded = encode_tensor(images, compress=False)
        header = TensorHeader(
            task=task,
            attempt=attempt,
            application="tiny",
            variant="any",
            micro_batch=micro_batch,
            micro_batches=micro_batches,
            expires_ms=expires_ms,
            dtype="uint8",
            shape=images.shape,
            codec=codec,
            encoded_bytes=len(encoded),
            route=route,
            stage=route.stage,
        )
        for frame in tensor_frames(header, encoded):
            await self.bus.send_frame(TENSOR, frame, node=route.node)

    def output(self, stage: str, *, task: str = "client.task", attempt: int = 1, micro_batch: int = 0) -> Any:
        return self.outputs[task, attempt, stage, micro_batch][1]

    def header(self, stage: str) -> TensorHeader:
        return self.outputs["client.task", 1, stage, 0][0]


def routes(variant: Variant, nodes: Sequence[str]) -> tuple[Route, ...]:
    """Routes of the root stages, stage i of the variant on node i."""
    node = dict(zip([stage.name for stage in variant.stages], nodes, strict=True))

    def routes_from(source: str) -> tuple[Route, ...]:
        return tuple(
            Route(
                stage=stage.name,
                node=node[stage.name],
                fragment=stage.fragment,
                next=routes_from(stage.name),
            )
            for stage in variant.children(source)
        )

    return routes_from(INPUT)


class World:
    """A broker's worth of nodes, a repository and the outside."""

    def __init__(self, url: str, folder: Path, **application: Any) -> None:
        self.url = url
        self.folder = folder
        self.settings = Settings(broker=url)
        self.application: Application = build_tiny_application(folder / "models", **application)
        self.store = ModelStore(folder / "models")
        self.repository = FragmentRepository(self.settings, self.store, self.application)
        self.outside = Outside(self.settings)
        self.agents: dict[str, Agent] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def start_node(self, name: str, **settings: Any) -> Agent:
        chosen = NodeSettings(
            broker=self.url,
            node=name,
            fragment_dir=self.folder / name,
            vitals_every_s=settings.pop("vitals_every_s", 0.1),
            **settings,
        )
        agent = Agent(chosen, score=50.0, encode_megabytes_per_second=1000.0)
        self.agents[name] = agent
        self._running[name] = asyncio.create_task(agent.run(), name=name)
        seen = len(self.outside.vitals)
        await until(lambda: any(vitals.node == name for vitals in self.outside.vitals[seen:]), 20)
        return agent

    async def stop_node(self, name: str) -> None:
        task = self._running.pop(name)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def stop(self) -> None:
        for name in list(self._running):
            await self.stop_node(name)

    def vitals(self, name: str) -> NodeVitals:
        return [vitals for vitals in self.outside.vitals if vitals.node == name][-1]

    async def next_vitals(self, name: str) -> NodeVitals:
        seen = len(self.outside.vitals)
        await until(lambda: any(vitals.node == name for vitals in self.outside.vitals[seen:]))
        return self.vitals(name)


@asynccontextmanager
async def world(url: str, folder: Path, *nodes: str, **application: Any) -> AsyncIterator[World]:
    made = World(url, folder, **application)
    async with made.repository.bus, made.outside.bus:
        await made.repository.bus.connected()
        await made.outside.bus.connected()
        try:
            for node in nodes:
                await made.start_node(node)
            yield made
        finally:
            await made.stop()


async def test_one_node_runs_a_whole_network_and_says_what_it_cost(broker_url: str, tmp_path: Path) -> None:
    images, _ = tiny_images(8)
    async with world(broker_url, tmp_path, "n1") as w:
        (route,) = routes(w.application.variant("whole"), ["n1"])
        await w.outside.send(route, images)
        await until(lambda: w.outside.outputs, 20)
        header = w.outside.header("whole")
        vitals = await w.next_vitals("n1")
    np.testing.assert_array_equal(w.outside.output("whole"), right_answers(images))
    assert header.route is None
    assert [(report.stage, report.node) for report in header.trace] == [("whole", "n1")]
    assert header.trace[0].compute_ms > 0
    assert header.moved_bytes == images.nbytes
    assert 0 < header.expires_ms < 30_000
    assert vitals.executed == 1
    assert vitals.loaded == vitals.stored == (route.fragment,)
    assert vitals.loaded_bytes == w.application.fragment(route.fragment).peak_memory_bytes
    assert [timing.fragment for timing in vitals.timings] == [route.fragment]


async def test_a_chain_over_three_nodes_passes_every_micro_batch_on(broker_url: str, tmp_path: Path) -> None:
    images, _ = tiny_images(20)
    async with world(broker_url, tmp_path, "n1", "n2", "n3") as w:
        (route,) = routes(w.application.variant("layer"), ["n1", "n2", "n3"])
        for number in range(5):
            await w.outside.send(
                route, images[4 * number : 4 * number + 4], micro_batch=number, micro_batches=5
            )
        await until(lambda: len(w.outside.outputs) == 5, 20)
    logits = np.concatenate([w.outside.output("layer-2", micro_batch=number) for number in range(5)])
    np.testing.assert_array_equal(logits, right_answers(images))
    header = w.outside.header("layer-2")
    assert [(report.stage, report.node) for report in header.trace] == [
        ("layer-0", "n1"),
        ("layer-1", "n2"),
        ("layer-2", "n3"),
    ]
    assert header.moved_bytes == 4 * (16 + 16 + 32)  # uint8 4x4, float32 2x2, float32 8
    assert [number for _, number in w.outside.order] == list(range(5))


async def test_a_stage_with_two_readers_sends_its_output_to_both(mosquitto_url: str, tmp_path: Path) -> None:
    """Not a variant of the tiny application, but routes may fork anywhere."""
    images, _ = tiny_images(3)
    async with world(mosquitto_url, tmp_path, "n1", "n2", "n3") as w:
        first, middle, last = w.application.variant("layer").stages
        ends = tuple(
            Route(stage=f"{last.name}-{node}", node=node, fragment=last.fragment) for node in ("n1", "n3")
        )
        fork = Route(stage="layer-1", node="n2", fragment=middle.fragment, next=ends)
        await w.outside.send(Route(stage="layer-0", node="n1", fragment=first.fragment, next=(fork,)), images)
        await until(lambda: len(w.outside.outputs) == 2, 20)
    for end in ends:
        np.testing.assert_array_equal(w.outside.output(end.stage), right_answers(images))
        assert w.outside.header(end.stage).trace[-1].node == end.node


async def test_branches_on_two_nodes_give_their_own_columns(mosquitto_url: str, tmp_path: Path) -> None:
    images, _ = tiny_images(6)
    async with world(mosquitto_url, tmp_path, "n1", "n2") as w:
        variant = w.application.variant("semantic")
        for route in routes(variant, ["n1", "n2"]):
            await w.outside.send(route, images)
        await until(lambda: len(w.outside.outputs) == 2, 20)
    logits = np.zeros((6, 4), np.float32)
    for stage in variant.sinks:
        logits[:, list(stage.classes)] = w.outside.output(stage.name)
    np.testing.assert_array_equal(logits, right_answers(images))
