"""Run a demo: start everything, wait until it is ready, let the sensors work, summarise."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from splitplace.bus.service import software_version
from splitplace.bus.settings import Settings
from splitplace.commands.demo.plan import NodePlan, plan_nodes
from splitplace.commands.demo.samples import find_samples
from splitplace.commands.demo.summary import SensorTask, summarise
from splitplace.commands.demo.system import start_nodes, start_sensor, start_services
from splitplace.commands.demo.workload import largest_batch, tight_deadline
from splitplace.commands.processes.broker import FoundBroker, found_broker
from splitplace.commands.processes.children import Child, Processes
from splitplace.commands.processes.cpu_shares import CpuShares, cpu_shares
from splitplace.commands.shared.client import clear_retained
from splitplace.commands.shared.credentials import hand_on_credentials
from splitplace.commands.watch.observation import Observation, observe
from splitplace.commands.watch.recording import Recorder, recording
from splitplace.commands.watch.screen import shown
from splitplace.errors import SplitPlaceError, UnreachableError
from splitplace.messages.application import Application
from splitplace.messages.topics import SERVICES
from splitplace.policies.pairs import PolicyPair
from splitplace.storage.model_store import ModelStore
from splitplace.storage.replace import replace_file
from splitplace.terminal import printable

READY_S = 180.0
"""Seconds to wait for services, then for nodes. Together they need five on an idle machine."""
SETTLE_S = 3.0
_TICK_S = 0.1

TASKS_PER_SECOND = 2.5
"""Rate of all sensors together. Two cores can answer most tasks, with deadlines as mixed as the sensors'."""

_REPORT = TypeAdapter(list[SensorTask])


class DemoError(SplitPlaceError):
    """The demo could not be carried out."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of a demo."""

    tasks: int
    nodes: int
    seed: int
    broker: str | None
    """URL of a broker; None starts one."""
    store: ModelStore
    folder: Path
    """Folder for everything that the demo writes."""
    data: Path | None = None
    """Folder of data sets, for applications without samples; None leaves these out."""
    log: Path | None = None
    """File to append decisions and outcomes to, for `splitplace replay`."""
    policy: PolicyPair | None = None
    """Split and placement policy; None leaves them to the services' settings."""
    arms: str = "all"
    """Variants to choose among."""


class Demo:
    """One demo, from start to summary."""

    def __init__(self, options: DemoOptions) -> None:
        """Check what is needed before anything is started.

        Raises:
            DemoError: No application has samples.
            DatasetError: What a given folder holds of a data set is broken.
            StoreError: The model store is not usable.
            PlanError: There is no such mix of nodes.
        """
        self.options = options
        self.store = options.store
        known, broken = self.store.usable()
        for error in broken:
            print(printable(f"not usable, left out: {error}"), file=sys.stderr)
        self.samples = find_samples(self.store, known, options.data, options.folder)
        self.applications = self._usable(known)
        self.plans = plan_nodes(options.nodes, os.cpu_count() or 1, self.applications)
        self.observation = Observation()

    def _usable(self, applications: Sequence[Application]) -> tuple[Application, ...]:
        usable = tuple(each for each in applications if each.name in self.samples)
        if not usable:
            raise DemoError(f"{self.store}: no application with samples; splitplace models build makes them")
        return usable

    def run(self) -> dict[str, Any]:
        """Run the demo. All processes have ended when this returns or raises.

        Returns:
            The summary.

        Raises:
            DemoError: A process died, or the system did not become ready.
            BrokerError: There is no broker.
        """
        started = time.monotonic()
        folder = self.options.folder
        with ExitStack() as stack:
            broker = stack.enter_context(found_broker(self.options.broker, folder / "broker"))
            # A prefix of its own keeps demos that share a broker apart.
            prefix = f"splitplace/demo-{secrets.token_hex(4)}"
            settings = Settings.load(broker=broker.url, prefix=prefix)
            hand_on_credentials(settings)
            broker = replace(broker, url=settings.broker)  # the summary shows it: without credentials
            if broker.kind == "given":
                stack.callback(_tidy_up, settings)
            shares = stack.enter_context(cpu_shares())
            system = stack.enter_context(Processes(folder / "log"))
            sensors = stack.enter_context(Processes(folder / "log"))
            start_services(
                system, settings, self.store, folder, policy=self.options.policy, arms=self.options.arms
            )
            asyncio.run(self._observed(settings, broker, shares, system, sensors))
            return self._summary(broker, shares, time.monotonic() - started)

    async def _observed(
        self,
        settings: Settings,
        broker: FoundBroker,
        shares: CpuShares,
        system: Processes,
        sensors: Processes,
    ) -> None:
        title = (
            f"SplitPlace demo: {len(self.plans)} nodes, {self.options.tasks} tasks, {broker.kind} broker at "
            f"{settings.broker}, topics below {settings.prefix}"
        )
        with recording(self.options.log) as recorder:
            async with _ended_by_signals(), shown(self.observation, title):
                course = asyncio.create_task(self._course(settings, shares, system, sensors), name="course")
                others = (
                    asyncio.create_task(_guard(system, broker), name="guard"),
                    asyncio.create_task(_observe(settings, self.observation, recorder), name="observer"),
                )
                try:
                    done, _ = await asyncio.wait((course, *others), return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                finally:
                    for task in (course, *others):
                        task.cancel()
                    await asyncio.gather(course, *others, return_exceptions=True)

    async def _course(
        self, settings: Settings, shares: CpuShares, system: Processes, sensors: Processes
    ) -> None:
        await self._ready(system, SERVICES)
        # Only now, because nodes measure their speed when they start: nothing else should be busy then.
        start_nodes(system, settings, self.plans, shares, self.options.folder)
        await self._ready(system, [plan.name for plan in self.plans])
        counts = _shared_out(self.options.tasks, len(self.applications))
        running = [
            start_sensor(
                sensors,
                settings,
                application=application.name,
                samples=self.samples[application.name],
                tasks=tasks,
                rate=TASKS_PER_SECOND / len(self.applications),
                seed=self.options.seed,
                report=self._report_file(application),
                batch_max=largest_batch(application),
                deadline=tight_deadline(application, self.observation.nodes.values()),
            )
            for application, tasks in zip(self.applications, counts, strict=True)
        ]
        await _until(lambda: all(sensor.code is not None for sensor in running))
        self._check_reports(running)
        seen = self.observation
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await _until(lambda: not seen.accepted.keys() - seen.finished.keys())

    async def _ready(self, system: Processes, names: Collection[str]) -> None:
        try:
            async with asyncio.timeout(READY_S):
                await _until(lambda: not self._missing(names))
        except TimeoutError:
            missing = self._missing(names)
            said = "\n".join(f"{name}: {system.children[name].last_lines()[-1:]}" for name in missing)
            raise DemoError(f"not ready after {READY_S:.0f} s: {', '.join(missing)}\n{said}") from None

    def _missing(self, names: Collection[str]) -> list[str]:
        """Return the services or nodes among `names` that are not online yet."""
        services = {name for name, said in self.observation.services.items() if said.online}
        nodes = {name for name, node in self.observation.nodes.items() if node.online}
        return sorted(set(names) - services - nodes)

    def _check_reports(self, sensors: Sequence[Child]) -> None:
        for application, sensor in zip(self.applications, sensors, strict=True):
            if not self._report_file(application).is_file():
                raise DemoError(f"{sensor.name} ended without a report:\n" + "\n".join(sensor.last_lines()))

    def _report_file(self, application: Application) -> Path:
        return self.options.folder / f"report-{application.name}.json"

    def _summary(self, broker: FoundBroker, shares: CpuShares, wall_s: float) -> dict[str, Any]:
        seen = self.observation
        sent = {
            each.name: _REPORT.validate_json(self._report_file(each).read_bytes())
            for each in self.applications
        }
        return {
            **summarise(sent, frozenset(seen.accepted), seen.finished, seen.examples),
            "nodes": [self._node(plan) for plan in self.plans],
            "cpu_shares": shares.mechanism,
            "broker": {"kind": broker.kind, "url": broker.url},
            "policy": "+".join(self.options.policy) if self.options.policy else None,
            "seed": self.options.seed,
            "wall_s": round(wall_s, 1),
            "software": software_version(),
        }

    def _node(self, plan: NodePlan) -> dict[str, Any]:
        info = self.observation.infos.get(plan.name)
        metrics = self.observation.node_metrics.get(plan.name)
        return {
            "node": plan.name,
            "cpu_share": plan.cpu_share,
            "score": info.score if info else None,
            "memory_budget_bytes": plan.memory_budget_bytes,
            "executed": metrics.executed if metrics else None,
            "energy_joules": metrics.energy_joules if metrics else None,
        }


def write_summary(summary: dict[str, Any], file: Path) -> None:
    """Write the summary as JSON. Raises OSError."""
    replace_file(file, f"{json.dumps(summary, indent=2)}\n".encode())


async def _until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that can only be polled."""
    while not condition():  # noqa: ASYNC110 - processes and plain state announce nothing
        await asyncio.sleep(_TICK_S)


def _shared_out(tasks: int, parts: int) -> list[int]:
    return [tasks // parts + (index < tasks % parts) for index in range(parts)]


async def _guard(system: Processes, broker: FoundBroker) -> None:
    """Raise DemoError when a process dies that should live."""
    while True:
        deaths = system.check()
        if deaths:
            raise DemoError("\n".join(map(str, deaths)))
        if broker.own is not None and broker.own.pid is None:
            raise DemoError(f"the broker died; its log is {broker.own.log_file}")
        await asyncio.sleep(_TICK_S)


async def _observe(settings: Settings, observation: Observation, recorder: Recorder | None) -> None:
    try:
        await observe(settings, observation, on_message=recorder.take if recorder else None)
    except (UnreachableError, OSError) as error:
        raise DemoError(str(error)) from error


@contextlib.asynccontextmanager
async def _ended_by_signals() -> AsyncIterator[None]:
    """Cancel the current task on SIGTERM and SIGHUP, as Ctrl-C does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    numbers = (signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, task.cancel if task else loop.stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _tidy_up(settings: Settings) -> None:
    with contextlib.suppress(UnreachableError, OSError):
        asyncio.run(clear_retained(settings))
