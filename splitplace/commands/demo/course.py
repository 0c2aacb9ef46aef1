"""The acts of a demo, one after the other."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from splitplace.bus.settings import Settings
from splitplace.commands.demo import words
from splitplace.commands.demo.acts import (
    LOOSEST,
    REFUSED_FASTER,
    TASKS_PER_SECOND,
    Cast,
    Shares,
    allowed,
    large_batch,
    loosest,
    rate,
    small_batch,
    small_deadline,
)
from splitplace.commands.demo.by_deadline import by_deadline, sentence
from splitplace.commands.demo.deadlines import read_deadlines, write_deadlines
from splitplace.commands.demo.kill import NodeKiller
from splitplace.commands.demo.options import DemoError, DemoOptions
from splitplace.commands.demo.plan import NodePlan, whole_bytes
from splitplace.commands.demo.single_node import best_single_node
from splitplace.commands.demo.stage import Stage
from splitplace.commands.demo.summary import SensorTask, figures
from splitplace.commands.demo.system import start_nodes, start_sensor, start_services
from splitplace.commands.demo.workload import TightDeadline, largest_batch, tight_deadline
from splitplace.commands.processes.children import Child, Processes
from splitplace.commands.processes.cpu_shares import CpuShares
from splitplace.commands.shared.service_processes import TOGETHER
from splitplace.commands.shared.task_path import path_lines
from splitplace.commands.watch.observation import Observation
from splitplace.messages.application import Application
from splitplace.messages.base import Message
from splitplace.messages.names import sensor_key
from splitplace.messages.topics import SERVICES, SPLITTER

READY_S = 180.0
"""Seconds to wait for services, then for nodes. Together they need five on an idle machine."""
SETTLE_S = 3.0
TICK_S = 0.1
FIRST_TASKS = 4
"""Tasks before the second act, while nodes fetch the pieces."""
FIRST_DEADLINE = TightDeadline(60_000.0, 0.0)
WHOLE = "whole"
"""Arms of the splitter in the first act."""

_REPORT = TypeAdapter(list[SensorTask])


@dataclass(slots=True)
class Outcome:
    """What the acts showed."""

    sent: dict[str, list[SensorTask]] = field(default_factory=dict)
    """Tasks by application, without those of the first act."""
    more: dict[str, Any] = field(default_factory=dict)
    """Figures of single acts, for the summary."""


class Course:
    """Start the system in pieces, and let the sensors work."""

    def __init__(
        self,
        options: DemoOptions,
        *,
        cast: Cast,
        shares: Shares,
        samples: Mapping[str, Path],
        plans: Sequence[NodePlan],
        seen: Observation,
    ) -> None:
        """Prepare; `start` must be called before the acts."""
        self._options, self._cast, self._shares, self._samples = options, cast, shares, samples
        self._plans, self._seen = plans, seen
        self.stage = Stage(seen, plain=options.plain, on_stderr=options.as_json)
        self.outcome = Outcome()
        self.leaving: set[str] = set()
        """Children whose death is no fault."""
        self._killer: NodeKiller | None = None
        self._deadlines: dict[str, TightDeadline | None] = {}

    def take(self, message: Message) -> None:
        """Take part in what happens; the observation has taken in the message before."""
        if self._killer is not None:
            self._killer.take(message)

    async def start(self, settings: Settings, cpus: CpuShares, system: Processes, sensors: Processes) -> None:
        """Start the nodes when the services are there. Raises DemoError."""
        self._settings, self._system, self._sensors = settings, system, sensors
        self.stage.doing(self._starting)
        if self._options.tasks:
            self.stage.say(words.prologue(len(self._plans), self._cast.large, self._cast.small))
        await self._ready(SERVICES)
        # Only now, because nodes measure their speed when they start: nothing else should be busy then.
        start_nodes(system, settings, self._plans, cpus, self._options.folder)
        await self._ready([plan.name for plan in self._plans])

    async def acts(self) -> None:
        """Run all acts. Raises DemoError."""
        large, small = self._cast.large, self._cast.small
        self._choose_deadlines()
        without = await self._without_splitting(large)
        split = await self._with_splitting(large, without)
        self.outcome.sent = {large.name: split}
        if self._shares.killed:
            self.outcome.sent[large.name] = split + await self._node_killed(large)
        if any(self._shares.small):
            self.outcome.sent |= await self._small_networks(small)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await _until(lambda: not self._seen.accepted.keys() - self._seen.finished.keys())
        self.stage.doing(lambda: "ending all processes")

    async def _without_splitting(self, large: Application) -> Mapping[str, Any]:
        largest = max(self._plans, key=lambda plan: plan.memory_budget_bytes)
        needs, tasks = whole_bytes(large), self._shares.split
        self.stage.head("Act 1: a network that no node can hold")
        self.stage.say(words.act_one(large, needs, largest.name, largest.memory_budget_bytes, tasks))
        name = f"unsplit-{large.name}"
        sent = (await self._send("act 1", {name: (large, tasks, 0, REFUSED_FASTER)}))[name]
        refusals = [each.reason for each in sent if each.status == "refused"]
        part = {
            "application": large.name,
            "arms": WHOLE,
            "needs_bytes": needs,
            "largest_node": largest.name,
            "largest_node_bytes": largest.memory_budget_bytes,
            "reason": refusals[0] if refusals else "",
            **self._figures(sent),
        }
        self.outcome.more["without_splitting"] = part
        self.stage.say(words.act_one_result(part))
        self._seen.decided.clear()
        self._seen.examples.clear()
        return part

    async def _with_splitting(self, large: Application, without: Mapping[str, Any]) -> list[SensorTask]:
        tasks = self._shares.split
        self.stage.head("Act 2: the same tasks, split over the nodes")
        self.stage.say(words.act_two(tasks))
        await self._allow_splits()
        await self._warm_up(large)
        name = f"sensor-{large.name}"
        sent = (await self._send("act 2", {name: (large, tasks, 0, 1.0)}))[name]
        part = self._figures(sent)
        single = best_single_node(large, sent, self._seen.nodes.values())
        groups = by_deadline(sent, self._deadlines.get(large.name), large, self._loosest(large))
        self.outcome.more["best_single_node"] = asdict(single) if single else None
        self.outcome.more["by_deadline"] = [
            {**asdict(group), "up_to": group.up_to if group.name != "loose" else None} for group in groups
        ]
        self.stage.say(words.act_two_result(part))
        ours = [each for key, each in self._seen.records.items() if key.startswith(f"{name}.")]
        for record in words.examples(ours, large):
            self.stage.lines(path_lines(record, self._seen.applications.get(large.name, large)))
        self.stage.say(words.comparison(without, single, part), words.verdict(single, part, large))
        if groups:
            self.stage.say(words.deadlines_table(groups), sentence(groups, large))
        return sent

    async def _warm_up(self, large: Application) -> None:
        """Bring the pieces of the network to the nodes: tasks with so much time that any split is in time."""
        name = f"first-{large.name}"
        sensor = start_sensor(
            self._sensors,
            self._settings,
            name=name,
            application=large.name,
            samples=self._samples[large.name],
            tasks=FIRST_TASKS,
            rate=1.0,
            seed=self._options.seed,
            report=self._report_file(name),
            batch_max=1,
            deadline=FIRST_DEADLINE,
            loosest=1.0,
        )
        self.stage.doing(lambda: "act 2: first tasks with much time, until nodes have fetched the pieces")
        await _until(lambda: sensor.code is not None)
        self._report(name, sensor)

    async def _node_killed(self, large: Application) -> list[SensorTask]:
        tasks, name = self._shares.killed, f"sensor-{large.name}-killed"
        self.stage.head("Act 3: a node is killed")
        self.stage.say(words.act_three(tasks))
        self._killer = NodeKiller(self._seen, self._system.children, name, tasks, self.leaving.add)
        sent = (await self._send("act 3", {name: (large, tasks, 1, 1.0)}))[name]
        killed = self._killer.outcome()
        self._killer = None
        self.outcome.more["node_killed"] = asdict(killed) if killed else None
        self.stage.say(words.act_three_result(self._figures(sent), killed))
        return sent

    async def _small_networks(self, small: Sequence[Application]) -> dict[str, list[SensorTask]]:
        tasks = sum(self._shares.small)
        self.stage.head("And small networks?")
        self.stage.say(words.act_four(small, tasks))
        wanted = {
            f"sensor-{each.name}": (each, count, 0, 1.0 / len(small))
            for each, count in zip(small, self._shares.small, strict=True)
            if count
        }
        reports = await self._send("small networks", wanted, small=True)
        sent = {wanted[name][0].name: report for name, report in reports.items()}
        everything = [task for report in sent.values() for task in report]
        kinds = {variant.name: variant.kind for each in small for variant in each.variants}
        chosen = [kinds.get(each.decision or "") for each in everything]
        ours = [each for key, each in self._seen.records.items() if key.startswith(tuple(wanted))]
        part = {
            **self._figures(everything),
            "whole": chosen.count("whole"),
            "split": sum(kind in words.SPLITS for kind in chosen),
            "predicted_ms": words.predicted(ours, {each.name: each for each in small}),
        }
        self.outcome.more["small_networks"] = part
        self.stage.say(words.act_four_result(part))
        return sent

    async def _send(
        self, act: str, wanted: Mapping[str, tuple[Application, int, int, float]], *, small: bool = False
    ) -> dict[str, list[SensorTask]]:
        """Run sensors to their end, and return their reports.

        Args:
            act: What is said about it.
            wanted: For each sensor the application, number of tasks, what is added to the seed, and the
                multiple of the usual rate.
            small: Whether these are small networks.
        """
        running = {}
        for name, (application, tasks, seed, pace) in wanted.items():
            deadline = self._deadlines.get(application.name)
            largest = largest_batch(application) if small else large_batch(application)
            running[name] = start_sensor(
                self._sensors,
                self._settings,
                name=name,
                application=application.name,
                samples=self._samples[application.name],
                tasks=tasks,
                rate=pace * (TASKS_PER_SECOND if small else rate(deadline, largest)),
                seed=self._options.seed + seed,
                report=self._report_file(name),
                batch_max=small_batch(largest) if small else largest,
                deadline=small_deadline(deadline) if small else deadline,
                loosest=LOOSEST if small else self._loosest(application),
            )
        self.stage.progress(act, running, sum(tasks for _, tasks, _, _ in wanted.values()))
        await _until(lambda: all(sensor.code is not None for sensor in running.values()))
        return {name: self._report(name, sensor) for name, sensor in running.items()}

    def _loosest(self, application: Application) -> float:
        nodes = tuple(self._seen.nodes.values())
        arms = allowed(application, self._options.arms)
        return loosest(arms, self._deadlines.get(application.name), nodes)

    def _report(self, name: str, sensor: Child) -> list[SensorTask]:
        file = self._report_file(name)
        if not file.is_file():
            raise DemoError(f"{sensor.name} ended without a report:\n" + "\n".join(sensor.last_lines()))
        return _REPORT.validate_json(file.read_bytes())

    def _report_file(self, name: str) -> Path:
        return self._options.folder / f"report-{name}.json"

    def _figures(self, sent: Sequence[SensorTask]) -> dict[str, Any]:
        finished = {sensor_key(key): event for key, event in self._seen.finished.items()}
        return figures(sent, frozenset(map(sensor_key, self._seen.accepted)), finished)

    def _choose_deadlines(self) -> None:
        file, nodes = self._options.deadlines, tuple(self._seen.nodes.values())
        everything = (self._cast.large, *self._cast.small)
        if file is not None and file.is_file():
            self._deadlines = read_deadlines(file)
            missing = [each.name for each in everything if each.name not in self._deadlines]
            if missing:
                raise DemoError(f"--deadlines: {file} has none for {', '.join(missing)}")
            return
        self._deadlines = {
            each.name: tight_deadline(allowed(each, self._options.arms), nodes) for each in everything
        }
        if file is not None:
            write_deadlines(file, self._deadlines)

    async def _allow_splits(self) -> None:
        """Start the splitter anew, with the variants that were asked for, and what shares its process."""
        name, services = (SPLITTER, [SPLITTER]) if self._options.apart else (TOGETHER, SERVICES)
        seen = self._seen.services
        before = {each: seen[each].boot for each in services}
        self.stage.doing(lambda: "the splitter starts again, with all its variants")
        self.leaving.add(name)
        await asyncio.to_thread(self._system.stop, [name])
        start_services(
            self._system,
            self._settings,
            self._options.store,
            self._options.folder,
            policy=self._options.policy,
            arms=self._options.arms,
            apart=self._options.apart,
            only=name,
        )
        self.leaving.discard(name)
        await self._wait(lambda: [each for each in services if seen[each].boot == before[each]])
        await self._ready([*services, *(plan.name for plan in self._plans)])

    async def _ready(self, names: Collection[str]) -> None:
        await self._wait(lambda: self._missing(names))

    async def _wait(self, missing: Callable[[], list[str]]) -> None:
        try:
            async with asyncio.timeout(READY_S):
                await _until(lambda: not missing())
        except TimeoutError:
            names = missing()
            children = self._system.children
            logs = dict.fromkeys(name if name in children else TOGETHER for name in names)
            said = "\n".join(f"{name}: {children[name].last_lines()[-1:]}" for name in logs)
            raise DemoError(f"not ready after {READY_S:.0f} s: {', '.join(names)}\n{said}") from None

    def _missing(self, names: Collection[str]) -> list[str]:
        """Return the services or nodes among `names` that are not online yet."""
        services = {name for name, said in self._seen.services.items() if said.online}
        nodes = {name for name, node in self._seen.nodes.items() if node.online}
        return sorted(set(names) - services - nodes)

    def _starting(self) -> str:
        services = len(SERVICES) - len(self._missing(SERVICES))
        names = [plan.name for plan in self._plans]
        return (
            f"starting: {services} of {len(SERVICES)} services, "
            f"{len(names) - len(self._missing(names))} of {len(names)} nodes"
        )


async def _until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that can only be polled."""
    while not condition():  # noqa: ASYNC110 - processes and plain state announce nothing
        await asyncio.sleep(TICK_S)
