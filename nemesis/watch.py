"""Look at the running system from outside: memory, descriptors, retained topics, signs of life, journal."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import psutil

from nemesis.faults import SERVICES
from nemesis.history import History, JournalRow, Lagged, LastBeat, Measured, RetainedTopics
from nemesis.sensors import connection
from nemesis.system import System
from nemesis.tasks import PREFIX

_MEASURE_EVERY_S = 2.0
_RETAINED_S = 1.5
_LAG_EVERY_S = 0.05
_LAG_S = 0.05
_NEVER_RETAINED = ("task", "answer", "job", "tensor", "fragment")


async def measure(system: System, history: History) -> None:
    """Note what every part costs, and how long it wanted a processor and got none, until cancelled."""
    before: dict[int, tuple[float, float]] = {}
    while True:
        for part in system.parts.values():
            family = part.family()
            if not family or part.paused:
                continue
            pid, waited_s = family[-1].pid, waiting_s(family[-1].pid)
            then_s, then_waited_s = before.get(pid, (history.now_s, waited_s))
            before[pid] = history.now_s, waited_s
            with contextlib.suppress(psutil.Error):
                history.add(
                    Measured(
                        at_s=history.now_s,
                        part=part.name,
                        pid=pid,
                        memory_mib=round(sum(p.memory_info().rss for p in family) / (1 << 20), 2),
                        descriptors=sum(p.num_fds() for p in family),
                        threads=sum(p.num_threads() for p in family),
                        starved_s=round(waited_s - then_waited_s, 3),
                        period_s=round(history.now_s - then_s, 3),
                    )
                )
        await asyncio.sleep(_MEASURE_EVERY_S)


def waiting_s(pid: int) -> float:
    """Return how long a process' main thread has waited for a processor; 0 where Linux does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


async def watch_lag(history: History) -> None:
    """Note when this process gets no processor, until cancelled."""
    while True:
        began_s = history.now_s
        await asyncio.sleep(_LAG_EVERY_S)
        lag_s = history.now_s - began_s - _LAG_EVERY_S
        if lag_s > _LAG_S:
            history.add(Lagged(at_s=history.now_s, lag_s=round(lag_s, 3)))


async def look_at_retained(port: int, history: History) -> None:
    """Note how many topics the broker retains, and which should not be."""
    sizes: dict[str, int] = {}
    with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
        async with connection(port, "nemesis-retained", lasting=False) as client:
            await client.subscribe(f"{PREFIX}/#", qos=0)
            async with asyncio.timeout(_RETAINED_S):
                async for message in client.messages:
                    if message.retain and isinstance(message.payload, bytes):
                        sizes[str(message.topic)] = len(message.payload)
    stray = tuple(
        sorted(topic for topic in sizes if topic.removeprefix(f"{PREFIX}/").split("/")[0] in _NEVER_RETAINED)
    )
    history.add(
        RetainedTopics(at_s=history.now_s, topics=len(sizes), total_bytes=sum(sizes.values()), stray=stray)
    )


class Pulse:
    """When each part last gave a sign of life that is not retained, and what of it is ready."""

    def __init__(self, port: int, system: System, history: History) -> None:
        self.beats: dict[str, float] = {}
        self.applications: set[str] = set()
        self._port = port
        self._system = system
        self._history = history

    async def run(self) -> None:
        """Listen until cancelled."""
        topics = ("metrics/service/+", "node/+/vitals", "application/+")
        while True:
            with contextlib.suppress(aiomqtt.MqttError, OSError, TimeoutError):
                async with connection(self._port, "nemesis-pulse", lasting=False) as client:
                    await client.subscribe([(f"{PREFIX}/{topic}", 0) for topic in topics])
                    async for message in client.messages:
                        levels = str(message.topic).removeprefix(f"{PREFIX}/").split("/")
                        if levels[0] == "application":
                            self.applications.add(levels[1])
                        elif not message.retain:
                            self.beats[levels[1] if levels[0] == "node" else levels[2]] = time.monotonic()
            await asyncio.sleep(0.2)

    @property
    def parts(self) -> tuple[str, ...]:
        """Whose pulse is taken."""
        return (*SERVICES, *self._system.nodes)

    async def all_alive(self, patience_s: float) -> bool:
        """Wait until every part has beaten after now; return whether all did."""
        began_s = time.monotonic()
        while time.monotonic() < began_s + patience_s:
            if all(self.beats.get(part, 0.0) > began_s for part in self.parts):
                return True
            await asyncio.sleep(0.1)
        return False

    def note_silence(self) -> None:
        """Note for how long each part has been silent."""
        now_s = time.monotonic()
        for part in self.parts:
            silent_s = now_s - self.beats.get(part, now_s - self._history.now_s)
            self._history.add(LastBeat(at_s=self._history.now_s, part=part, silent_s=round(silent_s, 2)))


def journal_rows(path: Path, at_s: float) -> Iterator[JournalRow]:
    """Return the rows of the gateway's journal. Raises sqlite3.Error if it cannot be read."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
        for client, task, answer, delivered in database.execute(
            "SELECT client, task, answer, delivered FROM tasks"
        ):
            yield JournalRow(
                at_s=at_s,
                task=f"{client}.{task}",
                status=json.loads(answer)["status"] if answer else None,
                delivered=bool(delivered),
            )
