"""The placer's shell: connects its core to the broker and the state file."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from splitplace.bus.backlog import Backlog
from splitplace.bus.cluster import subscribe_cluster
from splitplace.bus.connection import Received
from splitplace.bus.exchange import Exchange
from splitplace.bus.service import Service, now_ms
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState, PrepareFragments
from splitplace.messages.second_run import TaskLagging
from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.messages.topics import (
    APPLICATION,
    JOB_DECIDED,
    JOB_FINISHED,
    JOB_LAGGING,
    JOB_PLACED,
    JOB_SECOND_RUN,
    NODE_PREPARE,
    PLACER,
)
from splitplace.policies.placement import placement_policy
from splitplace.policies.placement.loading import DemandLoading
from splitplace.services.placer.core import PlacerCore
from splitplace.services.placer.settings import PlacerSettings
from splitplace.storage.state_file import StateFile

log = logging.getLogger(__name__)


class Placer:
    """Chooses a node for every stage of a decided task, and tells nodes which fragments to load."""

    def __init__(self, settings: PlacerSettings, exchange: Exchange | None = None) -> None:
        """A placer that does not run yet."""
        policy = placement_policy(settings.placement, seed=settings.seed, replicas=settings.replicas)
        self._settings = settings
        by_demand = settings.warm_up and settings.loading == "demand"
        self._core = PlacerCore(
            policy,
            warm_up=settings.warm_up,
            second_runs=settings.second_runs,
            loading=DemandLoading(1000 * settings.loading_s) if by_demand else None,
        )
        self._backlog: Backlog[TaskDecided] = Backlog(self._place)
        self._state = StateFile(settings.paths.placer_state, self._core)
        self._service = Service(PLACER, settings, exchange=exchange)
        self._service.reports(lambda: self._state.trouble)
        self._service.every(settings.save_every_s, self._state.save)
        self._service.every(settings.fine_tuning_s, self._end_period)
        if by_demand:
            without_solver = _without_solver()
            self._service.reports(lambda: without_solver)
            self._service.every(settings.loading_s, self._plan_loading)
        self._bus = self._service.bus
        self._bus.subscribe_at_once(JOB_DECIDED, self._on_decided)
        self._bus.subscribe_at_once(JOB_LAGGING, self._on_lagging)
        self._bus.subscribe_at_once(JOB_FINISHED, self._on_finished)
        subscribe_cluster(self._bus, self._on_cluster)
        self._bus.subscribe_at_once(APPLICATION, self._on_application, cleared=self._on_removed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._state.restore()
        try:
            await self._service.run()
        finally:
            await self._state.save()

    def _on_decided(self, received: Received[TaskDecided]) -> None:
        self._backlog.put(received.message)

    def _place(self, decided: TaskDecided, left_ms: float) -> None:
        decided = decided.model_copy(update={"slack_ms": left_ms})
        try:
            placing = self._core.place(decided, now_ms())
            if placing is not None:
                self._bus.send(JOB_PLACED, placing.placed)
                self._prepare(placing.prepare)
        except Exception:  # no message may end a service
            log.exception("placing task %s", decided.task)

    def _on_lagging(self, received: Received[TaskLagging]) -> None:
        placing = self._core.lagging(received.message, now_ms())
        if placing is not None:
            self._bus.send(JOB_SECOND_RUN, placing.second)
            self._prepare(placing.prepare)

    def _on_finished(self, received: Received[TaskFinished]) -> None:
        self._backlog.drop(received.message.task)
        self._core.finished(received.message, now_ms())

    def _on_cluster(self, state: ClusterState) -> None:
        self._prepare(self._core.cluster(state, now_ms()))

    def _on_application(self, received: Received[Application]) -> None:
        """Add a catalogue entry. A cleared one is kept, lest a stray empty message make its tasks fail."""
        entry = received.message
        if entry.name == received.parameters["application"]:
            self._prepare(self._core.add_application(entry))

    def _on_removed(self, levels: Mapping[str, str]) -> None:
        self._core.remove_application(levels["application"])

    def _prepare(self, hints: Iterable[PrepareFragments]) -> None:
        for hint in hints:
            self._bus.send(NODE_PREPARE, hint)

    async def _plan_loading(self) -> None:
        """Decide anew what nodes hold, in a thread: decisions go on."""
        solve = self._core.plan_loading(now_ms())
        if solve is not None:
            adopt = await asyncio.to_thread(solve)
            self._prepare(adopt())

    async def _end_period(self) -> None:
        """Train the policy on the period's tasks (line 14 of algorithm 1), in a thread: decisions go on."""
        training = self._core.end_period()
        if training is not None and self._settings.fine_tuning:
            adopt = await asyncio.to_thread(training)
            adopt()


def _without_solver() -> str:
    """Return what is wrong where loading by demand has no solver; empty if it has one."""
    if find_spec("scipy") is not None:
        return ""
    return "`loading = demand` needs scipy: install splitplace with the extra `experiments`"
