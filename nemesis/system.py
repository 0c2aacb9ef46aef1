"""The product as processes that can be hit one by one: a broker, the services together or apart, edge nodes.

A supervisor of its own starts again what ends, as systemd or a container platform would.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from nemesis.faults import BROKER
from nemesis.history import History, PartEnded, PartStarted
from nemesis.proxy import LOOPBACK, Link

_RESTART_AFTER_S = 1.0
_LAST_WORDS = 300
_OWN_PRIORITY = -15
_STOP_S = 10.0


class StartError(Exception):
    """The product did not come up; the text says what to look at."""


@dataclass
class Part:
    """One process of the product."""

    name: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    held: int = 0
    """Number of faults that keep it from being started."""
    paused: int = 0
    """Number of faults that keep it stopped."""

    @property
    def pid(self) -> int | None:
        """Process id, or None while it does not run."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def family(self) -> list[psutil.Process]:
        """Return the process and its children, children first."""
        if (pid := self.pid) is None:
            return []
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            return [*process.children(recursive=True), process]
        return []

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children."""
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def last_words(self) -> str:
        """Return the end of its log."""
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-_LAST_WORDS:].strip()
        return ""


def rule() -> None:
    """Give the nemesis itself the processor first, where that is allowed: it is the clock of the run."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _OWN_PRIORITY)


def ordinary_priority(pid: int) -> None:
    """Take the nemesis' priority from a process that it started."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, 0)


def free_port() -> int:
    """Return a TCP port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


class System:
    """All processes of one run, below one folder."""

    def __init__(
        self,
        folder: Path,
        history: History,
        *,
        services: Iterable[str],
        nodes: Iterable[str],
        proxied: bool,
        state_dir: Path | None = None,
        program: tuple[str, ...] = (sys.executable, "-m", "splitplace"),
    ) -> None:
        """A system that is not started yet.

        Args:
            folder: for logs and state.
            history: where starts and unexpected ends are noted.
            services: names of their processes, which are the commands that start them.
            nodes: names of the edge nodes.
            proxied: whether every part reaches the broker through a link of its own.
            state_dir: state of the services; by default below `folder`.
            program: the command line of the product.
        """
        self.folder = folder
        self._services = tuple(services)
        self.nodes = tuple(nodes)
        self.state_dir = state_dir or folder / "state"
        self.broker_port = free_port()
        self.parts: dict[str, Part] = {}
        self.links: dict[str, Link] = (
            {name: Link(self.broker_port) for name in (*self._services, *self.nodes)} if proxied else {}
        )
        self._history = history
        self._program = program
        self._watching: asyncio.Task[None] | None = None

    @property
    def journal(self) -> Path:
        """The gateway's journal."""
        return self.state_dir / "gateway.sqlite3"

    async def start(self) -> None:
        """Start broker, services and nodes. Raises StartError if the broker does not listen."""
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        broker = ["broker", "--port", str(self.broker_port), "--state-dir", str(self.folder / "broker")]
        self._add(BROKER, broker)
        self._start(self.parts[BROKER])
        await self._broker_listens()
        for link in self.links.values():
            await link.start()
        for name in self._services:
            self._add(name, [name, *self._connection(name), "--state-dir", str(self.state_dir)])
        for name in self.nodes:
            self._add(name, self.node_command(name, self.folder / "nodes"))
        for part in self.parts.values():
            if part.name != BROKER:
                self._start(part)
        self._watching = asyncio.create_task(self._watch())

    def node_command(self, name: str, state_dir: Path) -> list[str]:
        """Return the arguments that start an edge node."""
        return ["node", "--node", name, *self._connection(name), "--state-dir", str(state_dir)]

    def _connection(self, name: str) -> list[str]:
        port = self.links[name].port if name in self.links else self.broker_port
        return ["--broker", f"mqtt://{LOOPBACK}:{port}"]

    def _add(self, name: str, arguments: list[str]) -> None:
        self.parts[name] = Part(name, [*self._program, *arguments], self.folder / "logs" / f"{name}.log")

    async def _broker_listens(self) -> None:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.broker_port), 1):
                return
            await asyncio.sleep(0.1)
        raise StartError(f"the broker does not listen: {self.parts[BROKER].last_words()}")

    def _start(self, part: Part) -> None:
        part.process = self.spawn(part.command, part.log)
        self._history.add(PartStarted(at_s=self._history.now_s, part=part.name, pid=part.process.pid))

    def spawn(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, so that Ctrl-C reaches only the nemesis."""
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        ordinary_priority(process.pid)
        return process

    async def _watch(self) -> None:
        """Start again what ended."""
        due: dict[str, float] = {}
        while True:
            for part in self.parts.values():
                ended = part.process is not None and part.process.poll() is not None
                if not ended or part.held or part.process is None:
                    due.pop(part.name, None)
                elif part.name not in due:
                    due[part.name] = time.monotonic() + _RESTART_AFTER_S
                    self._history.add(
                        PartEnded(
                            at_s=self._history.now_s,
                            part=part.name,
                            pid=part.process.pid,
                            code=part.process.returncode,
                            last_words=part.last_words(),
                        )
                    )
                elif time.monotonic() >= due[part.name]:
                    del due[part.name]
                    self._start(part)
            await asyncio.sleep(0.1)

    def kill(self, name: str, number: signal.Signals) -> None:
        """End a part by a signal and keep it away until `release`."""
        part = self.parts[name]
        part.held += 1
        if number == signal.SIGTERM and part.pid is not None:
            os.kill(part.pid, number)
            part.signal(signal.SIGCONT)
        else:
            part.signal(number)

    async def release(self, name: str) -> None:
        """Start a part again when no other fault holds it."""
        part = self.parts[name]
        if part.process is not None and part.held == 1:
            for _ in range(int(_STOP_S / 0.05)):
                if part.process.poll() is not None:
                    break
                await asyncio.sleep(0.05)
            else:
                self._history.note(f"{name} did not end within {_STOP_S:g} s of SIGTERM")
                part.signal(signal.SIGKILL)
                part.process.wait(_STOP_S)
        part.held -= 1
        if not part.held and part.pid is None:
            self._start(part)

    def pause(self, name: str) -> None:
        """Stop a part's processes where they are."""
        self.parts[name].paused += 1
        self.parts[name].signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a part go on when no other fault stops it."""
        part = self.parts[name]
        part.paused -= 1
        if not part.paused:
            part.signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End every process, by its id, however far the start has come."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for link in self.links.values():
            await link.stop()
        parts = [part for part in self.parts.values() if part.process is not None]
        for part in reversed(parts):
            part.signal(signal.SIGCONT)
            part.signal(signal.SIGTERM)
        until_s = time.monotonic() + _STOP_S
        for part in parts:
            while part.pid is not None and time.monotonic() < until_s:  # noqa: ASYNC110 - processes set no event
                await asyncio.sleep(0.05)
        for part in parts:
            part.signal(signal.SIGKILL)
            if part.process is not None:
                part.process.wait(_STOP_S)
