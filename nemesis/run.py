"""One run, from an empty folder to a history."""

import asyncio
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt

from nemesis.faults import SERVICES, TOGETHER, Family, Fault, schedule
from nemesis.history import FaultBegan, Heard, History, Probed, Sent
from nemesis.injector import Injector, burner, end_all, small_file_system, unmount
from nemesis.poison import POISONS
from nemesis.samples import Application
from nemesis.sensors import Generator
from nemesis.system import StartError, System, rule
from nemesis.watch import Pulse, journal_rows, look_at_retained, measure, watch_lag

_START_S = 120.0
_SETTLE_S = 25.0
"""The longest deadline, the grace and some retries."""
_ASK_AGAIN_S = 15.0
_PROBES = 5
_PROBE_S = 20.0
_PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True)
class Plan:
    """What a run does. Equal plans do the same, as far as two runs of a distributed system can."""

    minutes: float
    seed: int
    families: tuple[Family, ...]
    rate: float
    """Tasks a second."""
    nodes: int
    starved: int
    """Burners that run all the time."""
    gap_s: float
    poisons: tuple[str, ...] = tuple(poison.name for poison in POISONS)
    warm_up_s: float = 10.0
    starve_from_s: float = 0.0
    """When the burners begin, from the start of the disturbance."""
    apart: bool = False
    """Whether each service is a process of its own, as with `splitplace up --processes`."""

    @property
    def services(self) -> tuple[str, ...]:
        """Names of the services' processes."""
        return SERVICES if self.apart else (TOGETHER,)

    @property
    def node_names(self) -> list[str]:
        """Names of the edge nodes."""
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    def faults(self) -> list[Fault]:
        """Return the schedule of the run."""
        return schedule(
            self.seed,
            self.families,
            services=self.services,
            nodes=self.node_names,
            poisons=self.poisons,
            length_s=60 * self.minutes,
            gap_s=self.gap_s,
        )


async def run(
    plan: Plan,
    folder: Path,
    history: History,
    applications: dict[str, Application],
    say: Callable[[str], None],
) -> None:
    """Run the plan. Everything it started has ended when it returns or raises.

    Args:
        plan: what to do.
        folder: an empty folder for state, logs and history.
        history: what happens goes there.
        applications: whose samples are sent.
        say: progress for people.

    Raises:
        StartError: the product did not answer a first task.
    """
    rule()
    asyncio.get_running_loop().set_exception_handler(partial(_note_error, history))
    quota: Path | None = folder / "quota" if "disk" in plan.families else None
    families = plan.families
    if quota is not None and (reason := small_file_system(quota)) is not None:
        history.note(f"disk faults are left out: cannot mount a small file system here ({reason})")
        quota, families = None, tuple(family for family in families if family != "disk")
    plan = Plan(**{**plan.__dict__, "families": families})
    system = System(
        folder,
        history,
        services=plan.services,
        nodes=plan.node_names,
        proxied="net" in plan.families,
        state_dir=quota,
    )
    try:
        await system.start()
        await _with_system(plan, system, history, applications, say)
    finally:
        await asyncio.shield(system.stop())
        if quota is not None:
            unmount(quota)


def _note_error(history: History, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep lost connections of ours out of the way; whatever else goes wrong here is noted."""
    error = context.get("exception")
    if loop.is_running() and not isinstance(error, (aiomqtt.MqttError, asyncio.CancelledError)):
        history.note(f"an error of the nemesis itself: {context['message']}: {error!r}")


async def _with_system(
    plan: Plan,
    system: System,
    history: History,
    applications: dict[str, Application],
    say: Callable[[str], None],
) -> None:
    generator = Generator(plan.seed, system.broker_port, history, applications)
    pulse = Pulse(system.broker_port, system, history)
    background = [asyncio.create_task(sensor.run()) for sensor in generator.sensors]
    background += [asyncio.create_task(pulse.run()), asyncio.create_task(measure(system, history))]
    background += [asyncio.create_task(_progress(history, say)), asyncio.create_task(watch_lag(history))]
    try:
        await _ready(pulse, generator, set(applications), say)
        await look_at_retained(system.broker_port, history)
        traffic = asyncio.create_task(generator.traffic(plan.rate))
        background.append(traffic)
        await asyncio.sleep(plan.warm_up_s)
        say(f"{history.now_s:.0f} s: faults begin")
        background.append(asyncio.create_task(_starve(plan, history, say)))
        ends_s = history.now_s + 60 * plan.minutes
        await Injector(system, history).run(plan.faults())
        await asyncio.sleep(ends_s - history.now_s)
        traffic.cancel()
        say(f"{history.now_s:.0f} s: all faults are healed")
        await _until_answered(generator, _SETTLE_S)
        silent = generator.ask_again()
        say(f"{history.now_s:.0f} s: asked again for {silent} tasks")
        await _until_answered(generator, _ASK_AGAIN_S)
        await _probe(generator, history)
        await pulse.all_alive(6.0)
        pulse.note_silence()
        await look_at_retained(system.broker_port, history)
        _read_journal(system, history)
    finally:
        generator.cancel()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)


async def _starve(plan: Plan, history: History, say: Callable[[str], None]) -> None:
    """Burn processors from the planned moment until cancelled."""
    if not plan.starved:
        return
    await asyncio.sleep(plan.starve_from_s)
    history.add(FaultBegan(at_s=history.now_s, number=0, fault="starve:always", targets=("cpu",)))
    say(f"{history.now_s:.0f} s: {plan.starved} processes burn a core each from now on")
    burners: list[subprocess.Popen[bytes]] = []
    try:
        burners += [burner() for _ in range(plan.starved)]
        await asyncio.Event().wait()
    finally:
        end_all(burners)


async def _ready(
    pulse: Pulse, generator: Generator, applications: set[str], say: Callable[[str], None]
) -> None:
    """Wait until every part beats and a first task was answered."""
    if not await pulse.all_alive(_START_S):
        missing = ", ".join(sorted(set(pulse.parts) - set(pulse.beats)))
        raise StartError(f"no sign of life of {missing or 'some part'}; see the logs")
    for _ in range(int(_START_S / 0.1)):
        if applications <= pulse.applications:
            break
        await asyncio.sleep(0.1)
    for _ in range(_PROBES):
        task = generator.send_one(easy=True)
        await _until_answered(generator, _PROBE_S)
        if any(wanted.task == task and wanted.status == "answered" for wanted in generator.wanted):
            say("the system answers")
            return
    raise StartError("all parts beat, but no first task was answered; see the logs")


async def _until_answered(generator: Generator, patience_s: float) -> None:
    """Wait until every acknowledged task has an answer, or patience ends."""
    for _ in range(int(patience_s / 0.1)):
        await asyncio.sleep(0.1)
        wanted = generator.wanted
        if wanted and all(task.status is not None for task in wanted if task.acknowledged):
            return


async def _probe(generator: Generator, history: History) -> None:
    """Send easy tasks, one after the other: whoever does not answer them now never will."""
    for _ in range(_PROBES):
        began_s = history.now_s
        task = generator.send_one(easy=True)
        status: str | None = None
        while status is None and history.now_s < began_s + _PROBE_S:
            await asyncio.sleep(0.02)
            status = next((w.status for w in generator.wanted if w.task == task), None)
        took_s = round(history.now_s - began_s, 2)
        history.add(Probed(at_s=history.now_s, task=task.key, status=status, took_s=took_s))


def _read_journal(system: System, history: History) -> None:
    try:
        for row in journal_rows(system.journal, history.now_s):
            history.add(row)
    except (sqlite3.Error, OSError) as error:
        history.note(f"the journal cannot be read: {error}")


async def _progress(history: History, say: Callable[[str], None]) -> None:
    """Say every few seconds how far the run has come."""
    while True:
        await asyncio.sleep(_PROGRESS_EVERY_S)
        counts = [
            sum(isinstance(record, kind) for record in history.records) for kind in (Sent, Heard, FaultBegan)
        ]
        say("{:.0f} s: {} sent, {} heard, {} faults".format(history.now_s, *counts))


def notes(records: Sequence[object]) -> list[str]:
    """Return the texts of all notes."""
    return [text for record in records if (text := getattr(record, "text", None)) is not None]
