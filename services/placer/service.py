"""The placer's shell: hears decisions and the cluster, publishes placements and hints to nodes."""

import asyncio
import logging
import time
from collections.abc import Iterable

from pydantic import Field, ValidationError
from pydantic_settings import CliImplicitFlag

from bus.connection import RawReceived, Received, parse
from bus.service import announced, service_bus
from bus.settings import Settings
from messages.cluster import ClusterState, PrepareFragments
from messages.frames import FrameError
from messages.task import TaskDecided, TaskFinished
from messages.topics import (
    APPLICATION,
    CLUSTER_STATE,
    JOB_DECIDED,
    JOB_FINISHED,
    JOB_PLACED,
    NODE_PREPARE,
    PLACER,
)
from policies.placement import PlacementName, placement_policy
from services.placer.core import Placer

log = logging.getLogger(__name__)


class PlacerSettings(Settings):
    """How stages find their nodes."""

    placement: PlacementName = Field("earliest-finish", description="how to choose nodes")
    seed: int = Field(0, description="of random numbers")
    warm_up: CliImplicitFlag[bool] = Field(
        default=True, description="nodes with free memory load fragments before a task needs them"
    )


class PlacerService:
    """The placer, connected."""

    def __init__(self, settings: PlacerSettings) -> None:
        """A service that is not connected yet."""
        policy = placement_policy(settings.placement, seed=settings.seed)
        self._placer = Placer(policy, warm_up=settings.warm_up)
        self._bus = service_bus(PLACER, settings)
        self._bus.subscribe(JOB_DECIDED, self._on_decided)
        self._bus.subscribe(JOB_FINISHED, self._on_finished)
        self._bus.subscribe(CLUSTER_STATE, self._on_cluster)
        self._bus.subscribe_raw(APPLICATION, self._on_application)

    async def run(self) -> None:
        """Work until cancelled."""
        async with announced(self._bus, PLACER):
            await asyncio.Event().wait()

    async def _on_decided(self, received: Received[TaskDecided]) -> None:
        placing = self._placer.place(received.message, _now_ms())
        if placing is not None:
            self._bus.send(JOB_PLACED, placing.placed)
            self._prepare(placing.prepare)

    async def _on_finished(self, received: Received[TaskFinished]) -> None:
        self._placer.finished(received.message, _now_ms())

    async def _on_cluster(self, received: Received[ClusterState]) -> None:
        self._prepare(self._placer.cluster(received.message, _now_ms()))

    async def _on_application(self, received: RawReceived) -> None:
        """Raw, because a retained entry that was cleared arrives as an empty payload."""
        name = received.parameters["application"]
        if not received.payload:
            self._placer.forget_application(name)
            return
        try:
            entry = parse(APPLICATION, APPLICATION.at(application=name), received.payload).message
        except (ValidationError, FrameError) as error:
            self._bus.statistics.rejected += 1
            log.debug("rejected the catalogue entry %s: %s", name, error)
            return
        if entry.name == name:
            self._prepare(self._placer.learn_application(entry))

    def _prepare(self, hints: Iterable[PrepareFragments]) -> None:
        for hint in hints:
            self._bus.send(NODE_PREPARE, hint)


def _now_ms() -> float:
    return time.monotonic() * 1000


async def serve(settings: PlacerSettings) -> None:
    """Run the placer until cancelled."""
    await PlacerService(settings).run()
