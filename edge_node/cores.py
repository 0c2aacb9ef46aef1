"""How many cores this process may use: its affinity, and the CPU quota of its control groups."""

import contextlib
import math
import os
from pathlib import Path

from splitplace.edge_node.control_groups import ControlGroup, control_groups


def usable_cores(root: Path = Path("/")) -> int:
    """Return the cores that this process may keep busy; a part of a core counts as a whole one.

    Args:
        root: Root of the file system.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = quota_cores(root)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def quota_cores(root: Path = Path("/")) -> float | None:
    """Return the CPU seconds a second that the control groups leave this process; None if unlimited.

    Args:
        root: Root of the file system.
    """
    quotas = [quota for group in control_groups("cpu", root) if (quota := _quota(group)) is not None]
    return min(quotas, default=None)


def _quota(group: ControlGroup) -> float | None:
    """Return the quota of a group in cores; None if it has none."""
    folder = group.folder
    with contextlib.suppress(OSError, ValueError):  # ValueError: `max`
        if group.version == 2:  # noqa: PLR2004
            quota, period = map(int, (folder / "cpu.max").read_text(encoding="ascii").split())
        else:
            quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
            period = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
        if quota > 0 and period > 0:
            return quota / period
    return None
