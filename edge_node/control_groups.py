"""Finds the control groups around this process, version 1 or 2."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple


class ControlGroup(NamedTuple):
    """A group that this process is in, or one around it."""

    version: Literal[1, 2]
    folder: Path


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[ControlGroup]:
    """Yield the groups of a controller, from the process's own outwards.

    Args:
        controller: Such as `memory` or `cpu`.
        root: Root of the file system.
    """
    mounts = _mounts(controller, root)
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers and 2 in mounts:  # noqa: PLR2004 - the version
                yield from (ControlGroup(2, folder) for folder in _outwards(mounts[2], path))
            elif controller in controllers.split(",") and 1 in mounts:
                yield from (ControlGroup(1, folder) for folder in _outwards(mounts[1], path))


def _outwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a group and of those above it."""
    own = mount / path.lstrip("/")
    # In a container the path may be that outside of it, which is not mounted: then the mount is our group.
    folder = own if own.is_dir() else mount
    yield folder
    while folder != mount:
        folder = folder.parent
        yield folder


def _mounts(controller: str, root: Path) -> dict[int, Path]:
    """Return where cgroup2, and the cgroup v1 tree with the controller, are mounted, by version."""
    found: dict[int, Path] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/mounts").read_text(encoding="utf-8").splitlines():
            _, folder, kind, options, *_ = line.split()
            if kind == "cgroup2":
                found.setdefault(2, root / folder.lstrip("/"))
            elif kind == "cgroup" and controller in options.split(","):
                found.setdefault(1, root / folder.lstrip("/"))
    return found
