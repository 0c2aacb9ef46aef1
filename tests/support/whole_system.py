"""A whole system of real processes on a real broker, with a sensor that checks every answer."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import sqlite3
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from splitplace.bus.cluster import subscribe_cluster
from splitplace.bus.connection import Bus, RawReceived, Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import Broker, StartedKind
from splitplace.commands.processes.children import Processes
from splitplace.messages import topics
from splitplace.messages.cluster import ClusterState, ServiceStatus
from tests.support.brokers import running_broker
from tests.support.tiny_application import build_tiny_application, tiny_images
from tests.support.waiting import PATIENCE_S, every, until

log = logging.getLogger(__name__)

MODULES = {
    topics.GATEWAY: "splitplace.services.gateway",
    topics.SPLITTER: "splitplace.services.splitter",
    topics.PLACER: "splitplace.services.placer",
    topics.RESOURCE_MONITOR: "splitplace.services.resource_monitor",
    topics.RESULT_AGGREGATOR: "splitplace.services.result_aggregator",
}
TOGETHER: Mapping[str, Sequence[str]] = {"services": ("splitplace", "services")}
APART: Mapping[str, Sequence[str]] = {service: (module,) for service, module in MODULES.items()}
NODES = ("n1", "n2", "n3")
ONE_BRANCH = 0.5
"""Coverage of one branch of the tiny application; only where the other is missing can a label be wrong."""
LONG_DEADLINE_MS = 40_000.0
"""Nothing is late by it, on a busy machine neither."""
START_S = 200.0
"""A system starts in three seconds on an idle machine; eight processes compete for it on a busy one."""
PACED = ("--cpu-share", "0.2", "--pacing")


@dataclass(frozen=True, slots=True)
class Setup:
    """What differs between systems."""

    policy: str = "random"
    nodes: tuple[str, ...] = NODES
    node_options: tuple[str, ...] = PACED
    stall_ms: float = 800.0
    fragment_memory_bytes: int = 100_000
    node_broker: str | None = None
    """Where nodes find the broker, if their link is a special one."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further ones of the services."""
    together: bool = False
    """Whether the services share a process, which is then called `services`."""


class System:
    """Broker, five services and some nodes, each a process that can be killed and started again."""

    def __init__(self, folder: Path, broker: Broker, processes: Processes, setup: Setup) -> None:
        self.broker = broker
        self.nodes = setup.nodes
        self.settings = Settings(broker=broker.url)
        self.store = folder / "store"
        self.journal = folder / "state" / "gateway.sqlite3"
        self._processes = processes
        common = {"state_dir": folder / "state", "store": self.store}
        settings = {**common, "policy": setup.policy, "stall_ms": setup.stall_ms, **setup.settings}
        for name, command in (TOGETHER if setup.together else APART).items():
            self._start(name, command, settings=settings)
        for node in setup.nodes:
            where = ("--node", node, "--fragment-dir", str(folder / "nodes" / node))
            self._start(node, ("splitplace.edge_node", *where, *setup.node_options), url=setup.node_broker)

    def _start(
        self,
        name: str,
        command: Sequence[str],
        *,
        settings: Mapping[str, Any] | None = None,
        url: str | None = None,
    ) -> None:
        variables = {f"SPLITPLACE_{key.upper()}": str(value) for key, value in (settings or {}).items()}
        program = (sys.executable, "-m", *command, "--broker", url or self.broker.url)
        self._processes.start(name, program, variables=variables)

    def kill(self, name: str) -> None:
        """End a process as a crash would."""
        self.send(name, signal.SIGKILL)

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process."""
        pid = self._processes.children[name].pid
        assert pid is not None, f"{name} does not run: {self.log(name)}"
        os.kill(pid, number)

    def restart(self, name: str) -> None:
        """Start a killed process again."""
        self._processes.children[name].end(deadline=0.0)
        self._processes.children[name].start()

    def log(self, name: str) -> str:
        """The end of a process's log."""
        return "\n".join(self._processes.children[name].last_lines())

    def dead(self) -> list[str]:
        """Processes that do not run."""
        return [name for name, child in self._processes.children.items() if child.pid is None]

    def journal_rows(self) -> list[tuple[str, dict[str, Any] | None, bool]]:
        """Key, answer and whether it was delivered, of every task ever accepted."""
        with contextlib.closing(sqlite3.connect(self.journal)) as connection:
            rows = connection.execute("SELECT key, answer, delivered FROM tasks").fetchall()
        return [
            (key, json.loads(answer) if answer else None, bool(delivered)) for key, answer, delivered in rows
        ]


@contextlib.contextmanager
def running_system(folder: Path, kind: StartedKind, setup: Setup | None = None) -> Iterator[System]:
    """A system on a broker of its own, all of it gone afterwards."""
    setup = setup or Setup()
    memory = setup.fragment_memory_bytes
    build_tiny_application(folder / "store", milliseconds_per_image=0.2, peak_memory_bytes=memory)
    with (
        running_broker(kind, folder / "broker") as broker,
        Processes(folder / "logs") as processes,
    ):
        system = System(folder, broker, processes, setup)
        asyncio.run(_wait_until_ready(system))
        yield system


async def _wait_until_ready(system: System) -> None:
    async with observed(system) as observer:

        def complete() -> bool:
            dead = system.dead()
            assert not dead, system.log(dead[0])
            return observer.services == set(MODULES) and observer.online == set(system.nodes)

        await until(complete, START_S)
        async with sensor_of(system) as sensor:
            await sensor.ask(1, LONG_DEADLINE_MS)
            await until(lambda: not sensor.unanswered())


@dataclass(slots=True)
class Observer:
    """What the retained topics say now."""

    services: set[str] = field(default_factory=set)
    online: set[str] = field(default_factory=set)


@contextlib.asynccontextmanager
async def observed(system: System) -> AsyncIterator[Observer]:
    """Watch services and nodes."""
    observer = Observer()
    bus = Bus(system.settings, f"observer-{secrets.token_hex(4)}")

    async def on_service(received: Received[ServiceStatus]) -> None:
        change = observer.services.add if received.message.online else observer.services.discard
        change(received.message.service)

    def on_cluster(state: ClusterState) -> None:
        observer.online = {node.node for node in state.nodes if node.online}

    bus.subscribe(topics.SERVICE_STATUS, on_service)
    subscribe_cluster(bus, on_cluster)
    async with bus:
        yield observer


class Sensor:
    """Sends labelled tasks, keeps every answer, and asks again for what it did not hear of."""

    def __init__(self, settings: Settings, name: str = "") -> None:
        self.name = name or f"sensor-{secrets.token_hex(4)}"
        self.bus = Bus(settings, f"{self.name}-{secrets.token_hex(4)}")
        self.sent: dict[str, tuple[bytes, list[int]]] = {}
        self.answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.bus.subscribe_raw(topics.ANSWER, self._on_answer, client=self.name)

    async def _on_answer(self, raw: RawReceived) -> None:
        answer = json.loads(raw.payload)
        self.answers[answer["task"]].append(answer)

    async def ask(self, batch: int, deadline_ms: float) -> None:
        """Send one task."""
        name = f"t{len(self.sent)}"
        images, labels = tiny_images(batch, seed=len(self.sent))
        body = {"inputs": images.tobytes(), "labels": labels.tolist(), "deadline_ms": deadline_ms}
        self.sent[name] = (bytes(msgpack.packb(body)), labels.tolist())
        await self._publish(name)

    async def _publish(self, name: str) -> None:
        topic = topics.TASK_NAMED.at(application="tiny", client=self.name, task=name)
        await self.bus.publish_raw(topic, self.sent[name][0])

    def unanswered(self) -> list[str]:
        """Tasks without an answer so far."""
        return [name for name in self.sent if not self.answers[name]]

    async def ask_again(self) -> None:
        """Send what is unanswered once more, under the same id."""
        for name in self.unanswered():
            await self._publish(name)

    def check(self) -> dict[str, int]:
        """Every task has one answer, and every result is right. Returns how many ended in which way."""
        ends: dict[str, int] = defaultdict(int)
        for name, (_, labels) in self.sent.items():
            told = [{**answer, "repeated": False} for answer in self.answers[name]]
            assert told, f"{name} was never answered"
            assert all(answer == told[0] for answer in told), f"{name} was told different things: {told}"
            first = told[0]
            ends[first["status"]] += 1
            if first["status"] != "answered":
                log.warning("%s", json.dumps(first))  # shown by pytest when the test fails
            assert first["reason"]
            if first["status"] == "answered":
                wrong = [
                    found
                    for found, label in zip(first["predictions"], labels, strict=True)
                    if found["index"] != label
                ]
                assert first["partial"] or not wrong
                assert all(found["confidence"] <= ONE_BRANCH for found in wrong)
        return dict(ends)


@contextlib.asynccontextmanager
async def sensor_of(system: System) -> AsyncIterator[Sensor]:
    """A sensor that is connected."""
    sensor = Sensor(system.settings)
    async with sensor.bus:
        await sensor.bus.connected()
        yield sensor


Fault = Callable[[], None]


async def load_with_faults(
    system: System,
    faults: Mapping[float, Fault],
    *,
    seconds: float = 4.0,
    deadline_ms: float = LONG_DEADLINE_MS,
) -> dict[str, int]:
    """Send tasks of mixed sizes all the time, let faults happen at given seconds, and check every answer."""
    random = np.random.default_rng(1)
    left = dict(sorted(faults.items()))
    async with sensor_of(system) as sensor:
        sending: list[asyncio.Task[None]] = []
        async for now in every(0.1):
            if now >= seconds and not left:
                break
            for at in [at for at in left if now >= at]:
                left.pop(at)()  # not in a thread: children die with the thread that started them
            sending.append(asyncio.create_task(sensor.ask(int(random.integers(1, 33)), deadline_ms)))
        await asyncio.wait_for(asyncio.gather(*sending), PATIENCE_S)
        for _ in range(10):
            with contextlib.suppress(TimeoutError):
                await until(lambda: not sensor.unanswered(), 3.0)
                break
            await sensor.ask_again()
        ends = sensor.check()
        await until(lambda: all(answer and delivered for _, answer, delivered in system.journal_rows()))
    return ends
