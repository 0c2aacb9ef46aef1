"""Child processes: watched, restarted on demand, never left behind.

Each has a log file, and a process group of its own: Ctrl-C reaches only the parent, which decides the order
of the end. The kernel kills the children if the parent is killed (`dies_with_parent`).
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from splitplace.commands.processes.dies_with_parent import tied_to_this_process

STOP_S = 5.0
_LAST_LINES = 12
_FIRST_PAUSE_S = 0.2
_LAST_PAUSE_S = 10.0
_STEADY_S = 30.0
"""A child that has run this long is restarted without a pause when it dies."""


@dataclass(frozen=True, slots=True)
class Death:
    """The unrequested end of a child."""

    name: str
    code: int
    """Its exit code; negative for the signal that ended it."""
    last_lines: tuple[str, ...]
    """The end of its log."""

    def __str__(self) -> str:
        how = f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        return f"{self.name} ended with {how}" + "".join(f"\n    {line}" for line in self.last_lines)


class Child:
    """One child process."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_file: Path,
        *,
        restart: bool,
        variables: Mapping[str, str],
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log_file = log_file
        self.restart = restart
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause_s = 0.0
        self._restart_at: float | None = None

    @property
    def pid(self) -> int | None:
        """Process id; None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def code(self) -> int | None:
        """Exit code; None before it has ended."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start the child; its output is appended to the log file."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                tied_to_this_process(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                env=os.environ | self._variables,
            )
        self._started = time.monotonic()
        self._restart_at = None

    def check(self) -> Death | None:
        """Report a death once. Restart the child, if that is wanted, after a pause that grows."""
        now = time.monotonic()
        if self._restart_at is not None:
            if now >= self._restart_at:
                self.start()
            return None
        if self._process is None or self._process.poll() is None:
            return None
        death = Death(self.name, self._process.returncode, self.last_lines())
        self._process = None
        if self.restart:
            grown = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LAST_PAUSE_S)
            self._pause_s = 0.0 if now - self._started > _STEADY_S else grown
            self._restart_at = now + self._pause_s
        return death

    def last_lines(self) -> tuple[str, ...]:
        """Return the end of its log."""
        with contextlib.suppress(OSError):
            return tuple(self.log_file.read_text(errors="replace").splitlines()[-_LAST_LINES:])
        return ()

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        self._restart_at = None
        if self._process is not None:
            self._process.terminate()

    def end(self, deadline: float) -> None:
        """Wait until `deadline` on the monotonic clock, then kill."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Processes:
    """The children of one command. As a context manager, ends them all, last started first."""

    def __init__(self, log_folder: Path, within: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        """Make `log_folder` if it is missing.

        Args:
            log_folder: for the log of each child.
            within: a command, by a child's name, that becomes the child's (see `ShapedLinks`).
        """
        self.log_folder = log_folder
        self._within = within
        self.children: dict[str, Child] = {}
        log_folder.mkdir(parents=True, exist_ok=True)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        restart: bool = False,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> Child:
        """Start a child.

        Args:
            name: Name of the child; its log is `<name>.log`.
            command: An absolute path or a name on the PATH, and its arguments.
            restart: Whether `check` starts it again when it dies.
            variables: Of its environment, beside those of this process.

        Raises:
            FileNotFoundError: There is no such command.
        """
        command = [*self._within.get(name, ()), *command]
        executable = shutil.which(command[0])
        if executable is None:
            raise FileNotFoundError(command[0])
        log_file = self.log_folder / f"{name}.log"
        child = Child(name, [executable, *command[1:]], log_file, restart=restart, variables=variables)
        child.start()
        self.children[name] = child
        return child

    def check(self) -> list[Death]:
        """Return the deaths since the last call. Call this a few times a second."""
        return [death for child in self.children.values() if (death := child.check()) is not None]

    def stop(self, names: Iterable[str] | None = None) -> None:
        """End these children, or all: ask all of them first, kill them after five seconds."""
        chosen = [self.children[name] for name in (self.children if names is None else names)]
        for child in reversed(chosen):
            child.ask_to_end()
        deadline = time.monotonic() + STOP_S
        for child in chosen:
            child.end(deadline)

    def restart(self, name: str) -> None:
        """End a child as `stop` does, and start it again."""
        self.stop([name])
        self.children[name].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
