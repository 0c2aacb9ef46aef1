"""Run a demo: start everything, run the acts, summarise."""

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
from dataclasses import replace
from pathlib import Path
from typing import Any

from splitplace.bus.service import software_version
from splitplace.bus.settings import Settings
from splitplace.commands.demo.acts import cast, shares
from splitplace.commands.demo.course import WHOLE, Course
from splitplace.commands.demo.options import DemoError, DemoOptions
from splitplace.commands.demo.plan import NodePlan, plan_nodes
from splitplace.commands.demo.samples import find_samples
from splitplace.commands.demo.summary import summarise
from splitplace.commands.demo.system import start_services
from splitplace.commands.processes.broker import FoundBroker, found_broker
from splitplace.commands.processes.children import Processes
from splitplace.commands.processes.cpu_shares import CpuShares, cpu_shares
from splitplace.commands.processes.shaped_links import shaped_links
from splitplace.commands.shared.client import clear_retained
from splitplace.commands.shared.credentials import hand_on_credentials
from splitplace.commands.watch.observation import Observation, observe
from splitplace.commands.watch.recording import Recorder, recording
from splitplace.errors import UnreachableError
from splitplace.messages.application import Application
from splitplace.messages.base import Message
from splitplace.storage.replace import replace_file
from splitplace.terminal import printable

_TICK_S = 0.1


class Demo:
    """One demo, from start to summary."""

    first_arms = WHOLE
    """Arms of the splitter when it starts."""
    preferred = False
    """Whether nodes have their CPU shares before other work on this machine gets time."""

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
        actors = cast(self.applications)
        self.course = Course(
            options,
            cast=actors,
            shares=shares(options.tasks, len(actors.small)),
            samples=self.samples,
            plans=self.plans,
            seen=self.observation,
        )

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
            LinkError: Links are to be shaped, which this machine or user cannot do.
        """
        started = time.monotonic()
        folder = self.options.folder
        with ExitStack() as stack:
            links = stack.enter_context(shaped_links(self._speeds()))
            broker = stack.enter_context(found_broker(self.options.broker, folder / "broker", links.host))
            # A prefix of its own keeps demos that share a broker apart.
            prefix = f"splitplace/demo-{secrets.token_hex(4)}"
            settings = Settings.load(broker=broker.url, prefix=prefix)
            hand_on_credentials(settings)
            broker = replace(broker, url=settings.broker)  # the summary shows it: without credentials
            if broker.kind == "given":
                stack.callback(_tidy_up, settings)
            shares = stack.enter_context(cpu_shares())
            if self.preferred:
                shares.prefer()
            system = stack.enter_context(Processes(folder / "log", links.within))
            sensors = stack.enter_context(Processes(folder / "log"))
            start_services(
                system,
                settings,
                self.store,
                folder,
                policy=self.options.policy,
                arms=self.first_arms,
                apart=self.options.apart,
            )
            asyncio.run(self._observed(settings, broker, shares, system, sensors))
            return self.summary(broker, shares, time.monotonic() - started)

    def _speeds(self) -> dict[str, float]:
        """Return the speed of each node's link, where they are shaped."""
        plans = self.plans if self.options.shaped else ()
        return {plan.name: plan.link_megabytes_per_second for plan in plans}

    async def _observed(
        self,
        settings: Settings,
        broker: FoundBroker,
        shares: CpuShares,
        system: Processes,
        sensors: Processes,
    ) -> None:
        with recording(self.options.log) as recorder:
            async with _ended_by_signals(), self.course.stage.open():
                course = asyncio.create_task(self._course(settings, shares, system, sensors), name="course")
                others = (
                    asyncio.create_task(_guard(system, broker, self.course.leaving), name="guard"),
                    asyncio.create_task(
                        _observe(settings, self.observation, recorder, self.course.take), name="observer"
                    ),
                )
                try:
                    done, _ = await asyncio.wait((course, *others), return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                finally:
                    for task in (course, *others):
                        task.cancel()
                    await asyncio.gather(course, *others, return_exceptions=True)

    async def send(self, settings: Settings, sensors: Processes) -> None:  # noqa: ARG002 - others need them
        """Let the sensors send their tasks, and wait until all have ended."""
        await self.course.acts()

    async def _course(
        self, settings: Settings, shares: CpuShares, system: Processes, sensors: Processes
    ) -> None:
        await self.course.start(settings, shares, system, sensors)
        await self.send(settings, sensors)

    def summary(self, broker: FoundBroker, shares: CpuShares, wall_s: float) -> dict[str, Any]:
        """Return the figures of the run."""
        seen, outcome = self.observation, self.course.outcome
        return {
            **summarise(outcome.sent, frozenset(seen.accepted), seen.finished, seen.examples),
            **outcome.more,
            "nodes": [self._node(plan) for plan in self.plans],
            "cpu_shares": shares.mechanism,
            "broker": {"kind": broker.kind, "url": broker.url},
            "policy": "+".join(self.options.policy) if self.options.policy else None,
            "processes": self.options.apart,
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


async def _guard(system: Processes, broker: FoundBroker, leaving: Collection[str]) -> None:
    """Raise DemoError when a process dies that should live."""
    while True:
        deaths = [death for death in system.check() if death.name not in leaving]
        if deaths:
            raise DemoError("\n".join(map(str, deaths)))
        if broker.own is not None and broker.own.pid is None:
            raise DemoError(f"the broker died; its log is {broker.own.log_file}")
        await asyncio.sleep(_TICK_S)


async def _observe(
    settings: Settings, observation: Observation, recorder: Recorder | None, tell: Callable[[Message], None]
) -> None:
    def take(topic: str, message: Message) -> None:
        if recorder is not None:
            recorder.take(topic, message)
        tell(message)

    try:
        await observe(settings, observation, on_message=take)
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
