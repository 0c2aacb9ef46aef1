"""Limit processes to a share of a core, for fast and slow nodes on one machine (decision 0007).

If the kernel permits, by a CPU quota in a control group (cgroup v2, or v1): the process cannot exceed it,
whatever it does. Otherwise the node is asked to pace itself.
"""

import contextlib
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

Mechanism = Literal["cgroup v2", "cgroup v1", "pacing"]

_PERIOD_US = 10_000
_SMALLEST_QUOTA_US = 1_000
"""Smallest quota that the kernel takes, in microseconds."""

_PREFIX = "splitplace-"
_REMOVE_S = 2.0


def quota(share: float) -> tuple[int, int]:
    """Return the quota and the period, in microseconds, for a share of one core.

    The period is 10 ms, short enough to look like a slower processor rather than one that stalls. It is
    longer only if the quota would be smaller than the kernel allows.

    Raises:
        ValueError: `share` is not positive.
    """
    if not share > 0:
        raise ValueError(f"a CPU share must be positive, not {share}")
    period = max(_PERIOD_US, math.ceil(_SMALLEST_QUOTA_US / share))
    return max(_SMALLEST_QUOTA_US, round(share * period)), period


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A control group below which this process may make groups with a CPU quota."""

    mechanism: Literal["cgroup v2", "cgroup v1"]
    folder: Path

    def limit(self, group: str, pid: int, share: float) -> None:
        """Move a process, with all its threads, into a new group below this one. Raises OSError."""
        allowed, period = quota(share)
        folder = self.folder / group
        folder.mkdir()
        if self.mechanism == "cgroup v2":
            (folder / "cpu.max").write_text(f"{allowed} {period}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(period))
            (folder / "cpu.cfs_quota_us").write_text(str(allowed))
        (folder / "cgroup.procs").write_text(str(pid))


class CpuShares:
    """Limits processes by the best mechanism there is."""

    def __init__(self, hierarchy: Hierarchy | None) -> None:
        self._hierarchy = hierarchy

    @property
    def mechanism(self) -> Mechanism:
        """How shares are enforced."""
        return self._hierarchy.mechanism if self._hierarchy is not None else "pacing"

    def limit(self, name: str, pid: int, share: float) -> None:
        """Limit a process to its share. Does nothing if the process paces itself.

        Args:
            name: Name of the process; unique, and usable as the name of a folder.
            pid: Its process id. Call this right after its start.
            share: Share of one core, positive.
        """
        if self._hierarchy is not None:
            self._hierarchy.limit(name, pid, share)

    def prefer(self) -> None:
        """Let the processes have their shares before others get time: for figures from a busy machine.

        Does nothing where shares are enforced by pacing. Raises OSError.
        """
        match self._hierarchy:
            case Hierarchy("cgroup v2", folder):
                (folder / "cpu.weight").write_text("10000")
            case Hierarchy("cgroup v1", folder):
                (folder / "cpu.shares").write_text("262144")


@contextlib.contextmanager
def cpu_shares(place: Hierarchy | None = None) -> Iterator[CpuShares]:
    """Offer CPU shares for the children of this process, and remove its groups at the end.

    The processes must have ended by then. Also removes groups that crashed runs have left behind.

    Args:
        place: Where to make groups; by default the place that `find_hierarchy` returns.
    """
    place = place or find_hierarchy()
    if place is None:
        yield CpuShares(None)
        return
    _remove_leftovers(place.folder)
    own = Hierarchy(place.mechanism, place.folder / f"{_PREFIX}{os.getpid()}")
    try:
        own.folder.mkdir(exist_ok=True)
        _pass_on_the_controller(own)
    except OSError:
        _remove(own.folder)
        yield CpuShares(None)
        return
    try:
        yield CpuShares(own)
    finally:
        _remove(own.folder)


def find_hierarchy() -> Hierarchy | None:
    """Return where this process may limit others, by trying it out; None if nowhere."""
    for hierarchy in _candidates():
        probe = hierarchy.folder / f"{_PREFIX}{os.getpid()}-probe"
        try:
            probe.mkdir()
        except OSError:
            continue
        try:
            name = "cpu.max" if hierarchy.mechanism == "cgroup v2" else "cpu.cfs_quota_us"
            if os.access(probe / name, os.W_OK) and os.access(hierarchy.folder / "cgroup.procs", os.W_OK):
                return hierarchy
        finally:
            _remove(probe)
    return None


def _candidates() -> Iterator[Hierarchy]:
    """Yield our control group and those above it, in every mounted tree that can limit CPU time."""
    mounts = _mounts()
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers and "cgroup2" in mounts:
                yield from _upwards("cgroup v2", mounts["cgroup2"], path)
            elif "cpu" in controllers.split(",") and "cgroup" in mounts:
                yield from _upwards("cgroup v1", mounts["cgroup"], path)


def _upwards(mechanism: Literal["cgroup v2", "cgroup v1"], mount: Path, path: str) -> Iterator[Hierarchy]:
    own = mount / path.lstrip("/")
    # In a container the path may be the host's, which is not mounted here: then the mount is our own group.
    folder = own if own.is_dir() else mount
    while True:
        # In v2 the controller must have been passed on to the children of the group.
        if mechanism == "cgroup v1" or "cpu" in _words(folder / "cgroup.subtree_control"):
            yield Hierarchy(mechanism, folder)
        if folder == mount:
            return
        folder = folder.parent


def _mounts() -> dict[str, Path]:
    """Return where cgroup2, and the cgroup v1 tree with the CPU controller, are mounted."""
    found: dict[str, Path] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, folder, kind, options, *_ = line.split()
            if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
                found.setdefault(kind, Path(folder))
    return found


def _words(file: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return file.read_text().split()
    return []


def _pass_on_the_controller(own: Hierarchy) -> None:
    """Enable the controller for the groups below ours, as v2 requires. Ours must hold no process itself."""
    if own.mechanism == "cgroup v2":
        (own.folder / "cgroup.subtree_control").write_text("+cpu")


def _remove_leftovers(folder: Path) -> None:
    """Remove the groups of runs that no longer exist. A group with processes in it stays."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            match = re.fullmatch(rf"{_PREFIX}(\d+)(-probe)?", entry.name)
            if match and not psutil.pid_exists(int(match[1])):
                _remove(entry, wait_s=0.0)


def _remove(folder: Path, wait_s: float = _REMOVE_S) -> None:
    """Remove a group and those below it. The kernel needs a moment after the last process has ended."""
    deadline = time.monotonic() + wait_s
    while folder.is_dir():
        with contextlib.suppress(OSError):
            for child in folder.iterdir():
                if child.is_dir():
                    child.rmdir()
            folder.rmdir()
            return
        if time.monotonic() >= deadline:
            return
        time.sleep(0.02)
