"""Memory control groups for benchmarks: a real limit, and what the kernel says of it. Needs root."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from splitplace.edge_node.control_groups import control_groups

_NAMES = {
    1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control", "memory.failcnt"),
    2: ("memory.max", "memory.peak", "memory.events", "memory.events"),
}


@dataclass(frozen=True)
class MemoryGroup:
    """A group with a limit."""

    version: int
    folder: Path

    def add(self, process: int) -> None:
        """Move a process into the group; its later children are in it, too."""
        (self.folder / "cgroup.procs").write_text(str(process))

    @property
    def peak_bytes(self) -> int:
        """Greatest use so far, with page cache."""
        return int((self.folder / _NAMES[self.version][1]).read_text())

    @property
    def kills(self) -> int:
        """Number of processes that were killed for memory."""
        for line in (self.folder / _NAMES[self.version][2]).read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        raise RuntimeError("this kernel does not count what it kills")


def _new_group(name: str) -> tuple[int, Path]:
    """Make a group where memory can be limited. Return its version and folder."""
    for version, place in reversed(list(control_groups("memory"))):
        folder = place / name
        with contextlib.suppress(OSError):
            folder.mkdir()
            if (folder / _NAMES[version][0]).exists():  # else the controller is not there
                return version, folder
            folder.rmdir()
    raise OSError("no memory control group can be made here; it takes root")


@contextlib.contextmanager
def memory_group(name: str, limit_bytes: int) -> Iterator[MemoryGroup]:
    """Make a group with a limit, and remove it at the end.

    Raises:
        OSError: Groups cannot be made here.
    """
    version, folder = _new_group(f"splitplace-{os.getpid()}-{name}")
    try:
        (folder / _NAMES[version][0]).write_text(str(limit_bytes))
        if version == 2:  # noqa: PLR2004 - control groups
            with contextlib.suppress(OSError):  # no swap here
                (folder / "memory.swap.max").write_text("0")
        yield MemoryGroup(version, folder)
    finally:
        for _ in range(100):  # the kernel needs a moment after the last process has ended
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.05)
