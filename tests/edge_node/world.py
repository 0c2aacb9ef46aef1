"""A broker's worth of edge nodes, a repository for them, and somebody outside who sends and collects."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from splitplace.bus.assembly import TensorAssembly
from splitplace.bus.background import now_ms
from splitplace.bus.connection import Received
from splitplace.bus.settings import Settings
from splitplace.edge_node.agent import Agent
from splitplace.edge_node.gains import ONE_THREAD, Gains
from splitplace.edge_node.own_speed import OwnSpeed
from splitplace.edge_node.settings import NodeSettings
from splitplace.messages.application import INPUT, Application, Variant
from splitplace.messages.cluster import NodeInfo, NodeStatus, NodeVitals, StageFailure
from splitplace.messages.frames import (
    AGGREGATOR_INBOX,
    GATEWAY_SENDER,
    Route,
    TensorHeader,
    decode_tensor,
    encode_tensor,
    tensor_frames,
)
from splitplace.messages.pieces import PieceRun
from splitplace.messages.task import StageReport
from splitplace.messages.topics import (
    NODE_FAILURE,
    NODE_INFO,
    NODE_STATUS,
    NODE_VITALS,
    TENSOR,
)
from splitplace.storage.model_store import ModelStore
from tests.support.observer import Observer
from tests.support.repository import FragmentRepository
from tests.support.tiny_application import build_tiny_application
from tests.support.waiting import until


class Outside(Observer):
    """Gateway, aggregator and resource monitor in one: sends inputs, collects what nodes publish."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, NODE_FAILURE, NODE_STATUS, NODE_INFO, NODE_VITALS, identifier="outside")
        self.outputs: dict[tuple[str, int, str, int], tuple[TensorHeader, NDArray[Any]]] = {}
        self.order: list[tuple[str, int]] = []
        self.duplicates = 0
        self._assembly = TensorAssembly()
        self.bus.subscribe(TENSOR, self._on_output, receiver=AGGREGATOR_INBOX)

    @property
    def failures(self) -> list[StageFailure]:
        """All failures so far."""
        return self.heard(NODE_FAILURE)

    @property
    def statuses(self) -> list[NodeStatus]:
        """All statuses so far."""
        return self.heard(NODE_STATUS)

    @property
    def infos(self) -> list[NodeInfo]:
        """All infos so far."""
        return self.heard(NODE_INFO)

    @property
    def vitals(self) -> list[NodeVitals]:
        """All heartbeats so far."""
        return self.heard(NODE_VITALS)

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
        images: NDArray[Any],
        *,
        task: str = "client.task",
        attempt: int = 1,
        micro_batch: int = 0,
        micro_batches: int = 1,
        expires_ms: float = 30_000.0,
        to: str | None = None,
        sender: str = GATEWAY_SENDER,
        trace: tuple[StageReport, ...] = (),
        compress: bool = False,
    ) -> None:
        codec, encoded = encode_tensor(images, compress=compress)
        header = TensorHeader(
            task=task,
            attempt=attempt,
            application="tiny",
            variant="any",
            micro_batch=micro_batch,
            micro_batches=micro_batches,
            expires_ms=expires_ms,
            dtype=str(images.dtype),  # type: ignore[arg-type]
            shape=images.shape,
            codec=codec,
            encoded_bytes=len(encoded),
            route=route,
            stage=route.stage,
            trace=trace,
        )
        for frame in tensor_frames(header, encoded):
            await self.bus.send_frame(TENSOR, frame, receiver=to or route.node, sender=sender)

    def output(self, stage: str, *, task: str = "client.task", attempt: int = 1, micro_batch: int = 0) -> Any:
        return self.outputs[task, attempt, stage, micro_batch][1]

    def header(self, stage: str) -> TensorHeader:
        return self.outputs["client.task", 1, stage, 0][0]


def routes(
    variant: Variant, nodes: Sequence[str], runs: Mapping[str, PieceRun] | None = None
) -> tuple[Route, ...]:
    """Routes of the root stages, stage i of the variant on node i. `runs`: their pieces, if grouped anew."""
    node = dict(zip([stage.name for stage in variant.stages], nodes, strict=True))

    def routes_from(source: str) -> tuple[Route, ...]:
        return tuple(
            Route(
                stage=stage.name,
                node=node[stage.name],
                fragment=stage.fragment,
                run=(runs or {}).get(stage.name),
                next=routes_from(stage.name),
            )
            for stage in variant.children(source)
        )

    return routes_from(INPUT)


class World:
    """A broker's worth of nodes, a repository and the outside."""

    def __init__(self, url: str, folder: Path, application: Application | None = None) -> None:
        self.url = url
        self.folder = folder
        self.settings = Settings(broker=url)
        self.application = application or build_tiny_application(folder / "models")
        self.store = ModelStore(folder / "models")
        self.repository = FragmentRepository(self.settings, self.store, self.application)
        self.outside = Outside(self.settings)
        self.agents: dict[str, Agent] = {}
        self.ended: list[str] = []
        """Nodes whose watchdog would have ended the process."""
        self._running: dict[str, asyncio.Task[None]] = {}

    def files(self, fragment: str) -> tuple[str, ...]:
        """Hashes of a fragment's files."""
        described = self.application.fragment(fragment)
        return tuple(file.sha256 for file in self.application.files_of(described))

    def sharing(self, *fragments: str) -> set[str]:
        """Fragments whose files are all among those of the given ones."""
        files = {file for fragment in fragments for file in self.files(fragment)}
        return {
            each.sha256 for each in self.application.fragments if files.issuperset(self.files(each.sha256))
        }

    async def start_node(self, name: str, *, gains: Gains = ONE_THREAD, **settings: Any) -> Agent:
        chosen = NodeSettings(
            broker=self.url,
            node=name,
            fragment_dir=self.folder / name,
            vitals_every_s=settings.pop("vitals_every_s", 0.1),
            **settings,
        )
        agent = Agent(
            chosen,
            speed=OwnSpeed(50.0, gains),
            encode_megabytes_per_second=1000.0,
            end=lambda: self.ended.append(name),
        )
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

    def info(self, name: str) -> NodeInfo:
        return [info for info in self.outside.infos if info.node == name][-1]

    async def next_info(self, name: str) -> NodeInfo:
        """What a node offers, as it says before its next heartbeat."""
        await self.next_vitals(name)
        return self.info(name)

    async def next_vitals(self, name: str) -> NodeVitals:
        seen = len(self.outside.vitals)
        await until(lambda: any(vitals.node == name for vitals in self.outside.vitals[seen:]), 20)
        return self.vitals(name)


@asynccontextmanager
async def world(
    url: str, folder: Path, *nodes: str, application: Application | None = None
) -> AsyncIterator[World]:
    """Everything connected; the nodes with default settings, others can be started inside."""
    made = World(url, folder, application)
    async with made.repository.bus, made.outside.bus:
        await made.repository.bus.connected()
        await made.outside.bus.connected()
        try:
            for node in nodes:
                await made.start_node(node)
            yield made
        finally:
            await made.stop()
