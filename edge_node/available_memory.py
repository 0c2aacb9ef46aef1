"""How much memory this process may hold: what its control groups leave it, and what the device has."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from splitplace.edge_node.control_groups import control_groups
from splitplace.messages.limits import MEBIBYTE

PROCESS_BYTES = 96 * MEBIBYTE
"""What a node without fragments takes: interpreter, libraries, connections, frames on their way."""
CHILD_BYTES = 40 * MEBIBYTE
"""What a bare child process takes that prepares or measures a stage, with its libraries."""
LEAST_BUDGET_BYTES = 16 * MEBIBYTE
"""Small networks can be run by a device that has less than this to spare, and swap."""

_UNLIMITED = 1 << 60
"""Limits above this are none: v1 shows the greatest number of whole pages."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How the memory of a node is shared out, in bytes."""

    budget_bytes: int
    """For loaded and preparing stages: their private memory."""
    queue_bytes: int
    """For incomplete tensors, and as much for those that wait."""


def shares(available_bytes: int) -> Shares:
    """Share out what a node may hold: a tenth for each of two queues, a tenth at least for mapped weights.

    Args:
        available_bytes: Memory that the process and its children may hold together.
    """
    left = max(0, available_bytes - PROCESS_BYTES - CHILD_BYTES)
    return Shares(max(LEAST_BUDGET_BYTES, left * 7 // 10), max(MEBIBYTE, left // 10))


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory this process may hold; None if the system does not tell.

    It is the least of what each of its control groups and the device leave beside what others hold in them.

    Args:
        root: Root of the file system.
    """
    own = _kibibytes(root / "proc/self/status", "RssAnon") or 0
    device = _kibibytes(root / "proc/meminfo", "MemAvailable")
    found = [_left(limit, others, own) for limit, others in _groups(root)]
    if device is not None:
        found.append(device + own)
    return min(found, default=None)


def room_for_fragments() -> int | None:
    """Return how much private and mapped memory of fragments there is room for; None if nothing tells."""
    available = available_bytes()
    return None if available is None else max(0, available - PROCESS_BYTES)


def _left(limit: int, held: int, own: int) -> int:
    """Return what a group leaves this process beside what others hold. Page cache gives way."""
    return max(0, limit - max(0, held - own))


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and private memory, in bytes, of each control group with a limit around this process."""
    for version, folder in control_groups("memory", root):
        limit = _number(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))  # noqa: PLR2004
        if limit is not None and limit < _UNLIMITED:
            yield limit, _stat(folder / "memory.stat", "anon" if version == 2 else "total_rss")  # noqa: PLR2004


def _number(file: Path) -> int | None:
    """Return the number in a file; None if there is none, as in `max`."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _stat(file: Path, key: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0


def _kibibytes(file: Path, key: str) -> int | None:
    """Return a figure of /proc in bytes; None if it is not there."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
