"""The splitter's shell: connects its core to the broker, the model store and the state file."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from splitplace.bus.backlog import Backlog
from splitplace.bus.cluster import subscribe_cluster
from splitplace.bus.connection import Received
from splitplace.bus.exchange import Exchange
from splitplace.bus.service import Service, now_ms
from splitplace.bus.upkeep import Upkeep
from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState
from splitplace.messages.task import TaskAccepted, TaskDecided, TaskFinished, TaskPlaced
from splitplace.messages.topics import (
    APPLICATION,
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
    """Chooses a variant for every accepted task, publishes the catalogue and serves fragment files."""

    def __init__(self, settings: SplitterSettings, exchange: Exchange | None = None) -> None:
        """A splitter that does not run yet."""
        policy = split_policy(
            settings.policy,
            seed=settings.seed,
            arms=parse_arms(settings.arms),
            margin=settings.margin,
            tolerance=settings.tolerance,
            mab_mode=settings.mab_mode,
        )
        self._settings = settings
        foreseen = placement_policy("earliest-finish", replicas=settings.replicas)
        self._core = SplitterCore(policy, foreseen)
        self._backlog: Backlog[TaskAccepted] = Backlog(self._decide)
        self._state = StateFile(settings.paths.splitter_state, self._core)
        self._store = settings.model_store
        self._service = Service(SPLITTER, settings, exchange=exchange)
        self._broken: tuple[StoreError, ...] = ()
        """What of the model store cannot be used."""
        # An application that the store has and cannot read now stays on offer: it may be readable again.
        self._catalogue = Upkeep(self._service, APPLICATION, clears_strays=lambda: not self._broken)
        self._stamp: tuple[object, ...] = ()
        """What the model store was when it was last read."""
        self._service.on_connect(self._publish_catalogue)
        self._service.every(settings.look_every_s, self._look_at_store, online_only=True)
        self._service.reports(lambda: self._state.trouble)
        self._service.reports(self._trouble_of_store)
        self._service.every(settings.save_every_s, self._state.save)
        self._alarm = self._service.alarm(self._decide_waiting)
        self._bus = self._service.bus
        self._bus.subscribe_at_once(JOB_ACCEPTED, self._on_accepted)
        self._bus.subscribe_at_once(JOB_PLACED, self._on_placed)
        self._bus.subscribe_at_once(JOB_FINISHED, self._on_finished)
        subscribe_cluster(self._bus, self._on_cluster)
        self._repository = Repository(self._service, self._store)

    async def run(self) -> None:
        """Work until cancelled. Raises SplitPlaceError if the model store cannot be used."""
        try:
            applications = await self._read_store()
        except StoreError as error:
            raise SplitPlaceError(f"model store {error} (choose another with --store)") from error
        if not applications:
            log.warning("%s: no application", self._store)
        self._core.add_applications(applications)
        await self._state.restore(self._settings.warm_start)
        try:
            await self._service.run()
        finally:
            await self._state.save()

    # --- tasks -------------------------------------------------------------------------------------

    def _on_accepted(self, received: Received[TaskAccepted]) -> None:
        self._backlog.put(received.message)

    def _decide(self, accepted: TaskAccepted, left_ms: float) -> None:
        accepted = accepted.model_copy(update={"slack_ms": left_ms})
        try:
            self._publish(self._core.accepted(accepted, now_ms()))
        except Exception:  # no message may end a service
            log.exception("deciding task %s", accepted.task)

    def _on_placed(self, received: Received[TaskPlaced]) -> None:
        self._core.placed(received.message, now_ms())

    def _on_finished(self, received: Received[TaskFinished]) -> None:
        self._backlog.drop(received.message.task)
        self._publish(self._core.finished(received.message, now_ms()))

    def _on_cluster(self, state: ClusterState) -> None:
        self._publish(self._core.cluster(state, now_ms()))

    def _decide_waiting(self) -> None:
        self._publish(self._core.decide_waiting(now_ms()))

    def _publish(self, decisions: Iterable[TaskDecided]) -> None:
        for decided in decisions:
            self._bus.send(JOB_DECIDED, decided)
        self._alarm.set(self._core.next_due_ms)

    # --- catalogue ---------------------------------------------------------------------------------

    async def _read_store(self) -> tuple[Application, ...]:
        """Return the applications that can be used, and note what cannot. Raises StoreError."""
        self._stamp = await asyncio.to_thread(
            self._store.stamp
        )  # first: what changes meanwhile is read again

        def read_all() -> tuple[tuple[Application, ...], tuple[StoreError, ...]]:
            applications, broken = self._store.usable()
            missing = [error for application in applications for error in self._store.missing(application)]
            return applications, (*broken, *missing)

        applications, broken = await asyncio.to_thread(read_all)
        known = set(map(str, self._broken))
        for error in broken:
            if str(error) not in known:
                log.warning("model store: %s; the rest is used", error)
        self._broken = broken
        return applications

    def _trouble_of_store(self) -> str:
        flipped = self._repository.broken
        if not self._broken and not flipped:
            return ""
        first = next(iter((*map(str, self._broken), *flipped)))[:300]
        more = len(self._broken) + len(flipped) - 1
        return f"model store: {first}" + (f" (and {more} more: splitplace doctor)" if more else "")

    async def _look_at_store(self) -> None:
        """Publish the catalogue again where an application was added, replaced or removed."""
        if await asyncio.to_thread(self._store.stamp) != self._stamp:
            log.info("the model store has changed: it is read again")
            await self._publish_catalogue()
        elif self._broken:  # its files may be complete by now
            with contextlib.suppress(StoreError):
                await self._read_store()

    async def _publish_catalogue(self) -> None:
        """Read and publish the store: the broker may be a new one, and the store may have changed."""
        try:
            applications = await self._read_store()
        except StoreError as error:
            log.warning("the catalogue stays as it is: %s", error)
            return
        self._core.add_applications(applications)
        await self._catalogue.publish({APPLICATION.at(application=each.name): each for each in applications})
