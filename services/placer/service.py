"""The placer's shell: hears decisions and the cluster, says placements and hints, keeps its memory."""

import asyncio
import time
from collections.abc import Iterable

from pydantic import Field
from pydantic_settings import CliImplicitFlag

from splitplace.bus.connection import Received
from splitplace.bus.service import announced, service_bus
from splitplace.bus.settings import Settings
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState, PrepareFragments
from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.messages.topics import (
    APPLICATION,
    CLUSTER_STATE,
    JOB_DECIDED,
    JOB_FINISHED,
    JOB_PLACED,
    NODE_PREPARE,
    PLACER,
)
from splitplace.policies.placement import PlacementName, placement_policy
from splitplace.services.placer.core import PlacerCore
from splitplace.storage.state_file import StateFile


class PlacerSettings(Settings):
    """How stages find their nodes."""

    placement: PlacementName = Field("earliest-finish", description="how to choose nodes")
    seed: int = Field(0, description="of random numbers")
    warm_up: CliImplicitFlag[bool] = Field(
        default=True, description="nodes with free memory load fragments before a task needs them"
    )
    fine_tuning: CliImplicitFlag[bool] = Field(
        default=True, description="gobi, daso: go on learning from what placements bring"
    )
    fine_tuning_s: float = Field(30.0, gt=0, description="gobi, daso: how often they do")
    save_every_s: float = Field(5.0, gt=0, description="how often what was learnt is saved")


class Placer:
    """The placer, connected."""

    def __init__(self, settings: PlacerSettings) -> None:
        """A service that is not connected yet."""
        policy = placement_policy(settings.placement, seed=settings.seed)
        self._settings = settings
        self._placer = PlacerCore(policy, warm_up=settings.warm_up)
        self._memory = StateFile(settings.paths.placer_state, self._placer)
        self._bus = service_bus(PLACER, settings)
        self._bus.subscribe(JOB_DECIDED, self._on_decided)
        self._bus.subscribe(JOB_FINISHED, self._on_finished)
        self._bus.subscribe(CLUSTER_STATE, self._on_cluster)
        self._bus.subscribe(APPLICATION, self._on_application)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._memory.restore()
        try:
            async with announced(self._bus, PLACER), asyncio.TaskGroup() as tasks:
                tasks.create_task(self._learn(), name="fine-tuning")
                while True:
                    await asyncio.sleep(self._settings.save_every_s)
                    await self._memory.save()
        finally:
            await self._memory.save()

    async def _on_decided(self, received: Received[TaskDecided]) -> None:
        placing = self._placer.place(received.message, _now_ms())
        if placing is not None:
            self._bus.send(JOB_PLACED, placing.placed)
            self._prepare(placing.prepare)

    async def _on_finished(self, received: Received[TaskFinished]) -> None:
        self._placer.finished(received.message, _now_ms())

    async def _on_cluster(self, received: Received[ClusterState]) -> None:
        self._prepare(self._placer.cluster(received.message, _now_ms()))

    async def _on_application(self, received: Received[Application]) -> None:
        """A cleared entry (an empty payload) is not forgotten.

        Nobody decides for it any more, and a stray empty message must not make its tasks fail.
        """
        entry = received.message
        if entry.name == received.parameters["application"]:
            self._prepare(self._placer.add_application(entry))

    # --- what is learnt --------------------------------------------------------------------------------

    async def _learn(self) -> None:
        """Line 14 of algorithm 1, once in each period: in a thread, so that no decision waits for it."""
        while True:
            await asyncio.sleep(self._settings.fine_tuning_s)
            training = self._placer.end_period()
            if training is not None and self._settings.fine_tuning:
                adopt = await asyncio.to_thread(training)
                adopt()

    def _prepare(self, hints: Iterable[PrepareFragments]) -> None:
        for hint in hints:
            self._bus.send(NODE_PREPARE, hint)


def _now_ms() -> float:
    return time.monotonic() * 1000


async def serve(settings: PlacerSettings) -> None:
    """Run the placer until cancelled."""
    await Placer(settings).run()
