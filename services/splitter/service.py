"""The splitter's shell: hears tasks and the cluster, says decisions and the catalogue, keeps its memory."""

import asyncio
import logging
import time
from collections.abc import Iterable

from splitplace.bus.connection import Received
from splitplace.bus.service import announced, service_bus
from splitplace.messages.cluster import ClusterState
from splitplace.messages.task import TaskAccepted, TaskDecided, TaskFinished, TaskPlaced
from splitplace.messages.topics import (
    APPLICATION,
    CLUSTER_STATE,
    JOB_ACCEPTED,
    JOB_DECIDED,
    JOB_FINISHED,
    JOB_PLACED,
    SPLITTER,
)
from splitplace.policies.placement import placement_policy
from splitplace.policies.splitting import parse_arms, split_policy
from splitplace.services.splitter.core import SplitterCore
from splitplace.services.splitter.repository import Repository
from splitplace.services.splitter.settings import SplitterSettings
from splitplace.storage.model_store import StoreError
from splitplace.storage.state_file import StateFile

log = logging.getLogger(__name__)


class Splitter:
    """The splitter, connected."""

    def __init__(self, settings: SplitterSettings) -> None:
        """A service that is not connected yet."""
        self._settings = settings
        self._store = settings.model_store
        policy = split_policy(
            settings.policy,
            seed=settings.seed,
            arms=parse_arms(settings.arms),
            margin=settings.margin,
            tolerance=settings.tolerance,
            mab_mode=settings.mab_mode,
        )
        self._splitter = SplitterCore(policy, placement_policy("earliest-finish"))
        self._memory = StateFile(settings.paths.splitter_state, self._splitter)
        self._repository = Repository(settings, self._store)
        self._timer: asyncio.TimerHandle | None = None
        self._bus = service_bus(SPLITTER, settings)
        self._bus.subscribe(JOB_ACCEPTED, self._on_accepted)
        self._bus.subscribe(JOB_PLACED, self._on_placed)
        self._bus.subscribe(JOB_FINISHED, self._on_finished)
        self._bus.subscribe(CLUSTER_STATE, self._on_cluster)
        self._bus.on_connect(self._publish_applications)

    async def run(self) -> None:
        """Work until cancelled. Raises StoreError where the model store cannot be used."""
        applications = await asyncio.to_thread(self._store.applications)
        if not applications:
            log.warning("%s: no application", self._store)
        self._splitter.add_applications(applications)
        await self._memory.restore(self._settings.warm_start)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._repository.run(), name="fragment repository")
                async with announced(self._bus, SPLITTER):
                    while True:
                        await asyncio.sleep(self._settings.save_every_s)
                        await self._memory.save()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._memory.save()

    # --- messages --------------------------------------------------------------------------------------

    async def _on_accepted(self, received: Received[TaskAccepted]) -> None:
        self._publish(self._splitter.accepted(received.message, _now_ms()))

    async def _on_placed(self, received: Received[TaskPlaced]) -> None:
        self._splitter.placed(received.message, _now_ms())

    async def _on_finished(self, received: Received[TaskFinished]) -> None:
        self._publish(self._splitter.finished(received.message, _now_ms()))

    async def _on_cluster(self, received: Received[ClusterState]) -> None:
        self._publish(self._splitter.cluster(received.message, _now_ms()))

    def _publish(self, decisions: Iterable[TaskDecided]) -> None:
        for decided in decisions:
            self._bus.send(JOB_DECIDED, decided)
        self._wake_up_in_time()

    def _wake_up_in_time(self) -> None:
        """What waits must be answered at its last moment, also when nothing more is heard."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ms = self._splitter.next_due_ms
        if due_ms is not None:
            wait_s = max(0.0, due_ms - _now_ms()) / 1000
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._last_moment)

    def _last_moment(self) -> None:
        self._publish(self._splitter.decide_waiting(_now_ms()))

    # --- catalogue -------------------------------------------------------------------------------------

    async def _publish_applications(self) -> None:
        """On every connect, from the disk: the broker may be a new one, and the store may have changed."""
        try:
            applications = await asyncio.to_thread(self._store.applications)
        except StoreError as error:
            log.warning("the catalogue stays as it is: %s", error)
            return
        self._splitter.add_applications(applications)
        for application in applications:
            await self._bus.publish(APPLICATION, application, application=application.name)


def _now_ms() -> float:
    return time.monotonic() * 1000


async def serve(settings: SplitterSettings) -> None:
    """Run the splitter until cancelled.

    Raises:
        StoreError: the model store cannot be used.
    """
    await Splitter(settings).run()
