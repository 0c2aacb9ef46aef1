"""The steps that install a unit and remove it again. They are data, so that `--dry-run` can show them."""

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from splitplace.commands.service.units import ACCOUNT, UNITS, Part, Target, adapted, shipped_unit
from splitplace.errors import SplitPlaceError

NODE_SETTINGS = """\
# Settings of the node. Without any it looks for a broker in its network.
# broker = "mqtt://192.168.1.10:1883"
# memory_budget_mb = 300.0       # default: what the unit's MemoryMax or the device leaves
# node = "kitchen"               # default: host name and a hash of the machine id
# link_megabytes_per_second = 10 # until the node has measured its link
"""


@dataclass(frozen=True, slots=True)
class Write:
    """Write a file."""

    path: Path
    text: str
    mode: int = 0o644
    is_kept: bool = False
    """Whether a file that is there stays as it is: somebody's settings."""

    def __str__(self) -> str:
        return f"write {self.path}" + (" unless it is there" if self.is_kept else "")


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a file."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True, slots=True)
class Run:
    """Run a program."""

    command: tuple[str, ...]
    unless: tuple[str, ...] = ()
    """Not run where this program succeeds."""

    def __str__(self) -> str:
        return shlex.join(self.command) + (f"  # unless {shlex.join(self.unless)}" if self.unless else "")


Step = Write | Remove | Run
Runner = Callable[[Sequence[str]], int]


@dataclass(frozen=True, slots=True)
class Place:
    """Folders of the manager that a unit is for."""

    root: Path
    """The root of the file system; another than `/` to look at what would be written."""
    home: Path
    """Home folder: the one of the user who runs this."""
    is_for_user: bool

    @property
    def units(self) -> Path:
        """Where units of an administrator, or of a user, are."""
        if self.is_for_user:
            return self.home / ".config" / "systemd" / "user"
        return self.root / "etc" / "systemd" / "system"

    @property
    def settings(self) -> Path:
        """Where settings of the parts are."""
        return self.home / ".config" / "splitplace" if self.is_for_user else self.root / "etc" / "splitplace"

    @property
    def control(self) -> tuple[str, ...]:
        """The beginning of a `systemctl` command."""
        return ("systemctl", "--user") if self.is_for_user else ("systemctl",)


def installing(part: Part, target: Target, place: Place, settings: str = NODE_SETTINGS) -> list[Step]:
    """Return the steps that install, enable and start a part.

    Args:
        part: what the unit runs.
        target: whose manager, and which program.
        place: folders.
        settings: a node's, where it has none yet.
    """
    steps: list[Step] = []
    if part == "node":
        steps.append(Write(place.settings / "node.toml", settings, is_kept=True))
    elif not place.is_for_user:
        home = "/var/lib/splitplace-services"
        add = ("useradd", "--system", "--home-dir", home, "--shell", "/usr/sbin/nologin", ACCOUNT)
        steps.append(Run(add, unless=("id", "--user", ACCOUNT)))
    steps.append(Write(place.units / UNITS[part], adapted(shipped_unit(part), target)))
    steps.append(Run((*place.control, "daemon-reload")))
    steps.append(Run((*place.control, "enable", UNITS[part])))
    # A node is started once it has found its broker: that may take for ever.
    waiting = ("--no-block",) if part == "node" else ()
    steps.append(Run((*place.control, *waiting, "restart", UNITS[part])))
    return steps


def uninstalling(part: Part, place: Place) -> list[Step]:
    """Return the steps that stop and remove a part. Settings and state stay."""
    return [
        Run((*place.control, "disable", "--now", UNITS[part])),
        Remove(place.units / UNITS[part]),
        Run((*place.control, "daemon-reload")),
    ]


def perform(steps: Sequence[Step], run: Runner) -> None:
    """Do the steps in order.

    Raises:
        SplitPlaceError: a step failed; those before it are done.
    """
    for step in steps:
        try:
            _perform(step, run)
        except OSError as error:
            raise SplitPlaceError(f"could not {step}: {error.strerror or error}") from error


def _perform(step: Step, run: Runner) -> None:
    match step:
        case Write():
            if step.is_kept and step.path.exists():
                return
            step.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = step.path.with_name(f".{step.path.name}.new")
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY, step.mode), "w") as file:
                file.write(step.text)
            fresh.chmod(step.mode)
            fresh.replace(step.path)
        case Remove():
            step.path.unlink(missing_ok=True)
        case Run():
            if step.unless and run(step.unless) == 0:
                return
            if (code := run(step.command)) != 0:
                raise SplitPlaceError(f"{shlex.join(step.command)} ended with exit code {code}")


def run_quietly(command: Sequence[str]) -> int:
    """Run a program, its errors on this one's; return its exit code."""
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode  # noqa: S603
