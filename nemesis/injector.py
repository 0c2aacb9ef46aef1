"""Injects faults into a running system, at their times, and heals all of them at the end."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import aiomqtt
from aiomqtt.types import PayloadType

from nemesis.faults import BROKER, Fault
from nemesis.history import FaultBegan, FaultHealed, History, PoisonAnswered, PoisonSent
from nemesis.poison import POISONS, poison_named
from nemesis.sensors import connection, decoded, publish
from nemesis.system import System, ordinary_priority
from nemesis.tasks import Publication

_BURN = "while True: pass"
_QUOTA = "48m"
_BLOCK_BYTES = 1 << 16
_RECONNECT_AFTER_S = 0.5
_LAST_ANSWERS_S = 10.0
"""For answers to the last hostile messages."""
_TRIES = 5


def burner() -> subprocess.Popen[bytes]:
    """Start a process that burns one core."""
    process = subprocess.Popen([sys.executable, "-c", _BURN])
    ordinary_priority(process.pid)
    return process


def end_all(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Kill processes of ours and wait for them."""
    for process in processes:
        process.kill()
        process.wait()


def small_file_system(folder: Path) -> str | None:
    """Mount a small file system there. Return None, or why that is not possible here."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_QUOTA}", "nemesis", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip()


def unmount(folder: Path) -> None:
    """Give a small file system back."""
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False, timeout=10)


class Injector:
    """The hand that does it."""

    def __init__(self, system: System, history: History) -> None:
        self._system = system
        self._history = history
        self._mallory = Mallory(system.broker_port, history)
        self._burners: list[subprocess.Popen[bytes]] = []
        self._clones: list[subprocess.Popen[bytes]] = []

    async def run(self, faults: Iterable[Fault]) -> None:
        """Inject a schedule; returns when all is healed, also when cancelled."""
        listening = asyncio.create_task(self._mallory.listen())
        try:
            async with asyncio.TaskGroup() as group:  # one that fails heals and ends all others
                for fault in faults:
                    group.create_task(self._one(fault))
            await self._mallory.heard_all(_LAST_ANSWERS_S)
        finally:
            end_all(self._burners + self._clones)
            await asyncio.shield(self._mallory.clean_up())
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _one(self, fault: Fault) -> None:
        await asyncio.sleep(fault.begins_s)
        began = FaultBegan(
            at_s=self._history.now_s,
            number=fault.number,
            fault=f"{fault.family}:{fault.action}",
            targets=fault.targets,
            detail=fault.text,
        )
        self._history.add(began)
        if fault.family == "poison":
            await self._mallory.send(fault.action)
            self._history.add(FaultHealed(at_s=self._history.now_s, number=fault.number))
            return
        heal = self._begin(fault)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            await heal()
            self._history.add(FaultHealed(at_s=self._history.now_s, number=fault.number))

    def _begin(self, fault: Fault) -> Callable[[], "asyncio.Future[None]"]:
        """Inject a fault; return what heals it."""
        system = self._system
        undo: list[Callable[[], object]] = []
        released: list[str] = []
        for target in fault.targets:
            match fault.action:
                case "kill" | "stop":
                    system.kill(target, signal.SIGKILL if fault.action == "kill" else signal.SIGTERM)
                    released.append(target)
                case "pause":
                    system.pause(target)
                    undo.append(partial(system.resume, target))
                case "fill":
                    ballast = system.state_dir / "ballast"
                    fill(ballast)
                    undo.append(partial(ballast.unlink, missing_ok=True))
                case "burn":
                    burners = [burner() for _ in range(int(fault.strength))]
                    self._burners += burners
                    undo.append(partial(end_all, burners))
                case "clone":
                    clone = self._clone(target)
                    undo.append(partial(end_all, [clone]))
                case _:
                    link = system.links[target]
                    link.inflict(fault.action, fault.strength)
                    undo.append(link.heal)

        async def heal() -> None:
            for step in undo:
                step()
            # The broker first, or every part finds it gone.
            await asyncio.gather(*(system.release(name) for name in sorted(released, key=BROKER.__ne__)))

        return lambda: asyncio.ensure_future(heal())

    def _clone(self, node: str) -> subprocess.Popen[bytes]:
        """Start a second node of the same name, with its own files."""
        folder = self._system.folder / "clones"
        command = self._system.node_command(node, folder)
        original = self._system.parts[node].command
        clone = self._system.spawn(
            [*original[: len(original) - len(command)], *command], self._system.folder / "logs" / "clones.log"
        )
        self._clones.append(clone)
        return clone


def fill(path: Path) -> None:
    """Write zeros until the file system is full."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            while os.write(file, bytes(_BLOCK_BYTES)):
                pass
        finally:
            os.close(file)


class Mallory:
    """The client that publishes the hostile messages, and waits for answers like everybody."""

    def __init__(self, port: int, history: History) -> None:
        self._port = port
        self._history = history
        self._waits = {row.answer_topic: row.name for row in POISONS if row.answer_topic is not None}
        self._retained: list[str] = []
        self._unanswered: set[str] = set()

    async def heard_all(self, patience_s: float) -> None:
        """Wait until every hostile message that must be answered was, or patience ends."""
        for _ in range(int(patience_s / 0.1)):
            if not self._unanswered:
                return
            await asyncio.sleep(0.1)

    async def listen(self) -> None:
        """Take answers until cancelled."""
        while True:
            with contextlib.suppress(aiomqtt.MqttError, OSError, TimeoutError):
                async with connection(self._port, "nemesis-mallory", lasting=True) as client:
                    await client.subscribe([(topic, 1) for topic in self._waits])
                    async for message in client.messages:
                        self._take(self._waits[str(message.topic)], message.payload)
            await asyncio.sleep(_RECONNECT_AFTER_S)

    def _take(self, poison: str, payload: PayloadType) -> None:
        status = str(decoded(payload).get("status"))
        self._unanswered.discard(poison)
        self._history.add(PoisonAnswered(at_s=self._history.now_s, poison=poison, status=status))

    async def send(self, name: str) -> None:
        """Publish a hostile message, each on a connection of its own: it may cost the connection."""
        poison = poison_named(name)
        message = await asyncio.to_thread(poison.make)
        if message.retain:
            self._retained.append(message.topic)
        if poison.answer_topic is not None:
            self._unanswered.add(name)
        if await self._publish(message, poison.client_id):
            self._history.add(
                PoisonSent(
                    at_s=self._history.now_s,
                    poison=name,
                    must_be_answered=poison.answer_topic is not None,
                )
            )
        else:
            self._unanswered.discard(name)
            self._history.note(f"the broker does not take {name}")

    async def clean_up(self) -> None:
        """Take back what the broker retains of it."""
        for topic in self._retained:
            await self._publish(Publication(topic, b"", retain=True))

    async def _publish(self, message: Publication, client_id: str = "nemesis-mallory-sends") -> bool:
        for _ in range(_TRIES):
            with contextlib.suppress(aiomqtt.MqttError, OSError, TimeoutError):
                async with connection(self._port, client_id, lasting=False) as client:
                    await publish(client, message)
                    return True
            await asyncio.sleep(_RECONNECT_AFTER_S)
        return False
