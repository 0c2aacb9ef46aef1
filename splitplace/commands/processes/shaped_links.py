"""Links of a given speed between a broker here and processes that run in network namespaces of their own.

Only for root on Linux, with `ip` and `tc` (iproute2) and `nsenter` (util-linux). Each process has an
interface that is shaped in both directions; all meet at a bridge, on whose address the broker must listen.
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from splitplace.commands.processes.broker import LOOPBACK
from splitplace.errors import SplitPlaceError

_PREFIX = "splitplace-"
_BURST_BYTES = 32_768
_LONGEST_MS = 50
"""Longest time that a packet waits in a link's queue before it is dropped."""
_NAMESPACES = "/run/netns"


class LinkError(SplitPlaceError):
    """Links cannot be shaped here."""


@dataclass(frozen=True, slots=True)
class ShapedLinks:
    """Where to listen, and how to start what has a shaped link."""

    host: str = LOOPBACK
    """Address for the broker."""
    within: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What to put before the command of a process, by its name."""


@contextlib.contextmanager
def shaped_links(speeds: Mapping[str, float]) -> Iterator[ShapedLinks]:
    """Make links inside the `with` block, which must end the processes that use them.

    Args:
        speeds: MB/s of each process's link, by its name. Without any, all use the loopback.

    Raises:
        LinkError: the kernel or this user cannot do that.
    """
    if not speeds:
        yield ShapedLinks()
        return
    missing = [tool for tool in ("ip", "tc", "nsenter") if shutil.which(tool) is None]
    if missing:
        raise LinkError(f"shaping links needs {' and '.join(missing)} (iproute2, util-linux)")
    _remove_leftovers()
    own = os.getpid()
    bridge, subnet = f"sp{own}", f"198.18.{own % 256}"  # a range for measurements (RFC 2544)
    names = {name: f"{_PREFIX}{own}-{number}" for number, name in enumerate(speeds, start=1)}
    try:
        _run("ip", "link", "add", bridge, "type", "bridge")
        _run("ip", "addr", "add", f"{subnet}.1/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        for number, (name, speed) in enumerate(speeds.items(), start=1):
            _connect(names[name], bridge, f"{subnet}.{number + 1}/24", number, speed)
        within = {name: ("nsenter", f"--net={_NAMESPACES}/{space}") for name, space in names.items()}
        yield ShapedLinks(f"{subnet}.1", within)
    finally:
        for space in names.values():
            _try("ip", "netns", "del", space)  # and its interface with its peer
        _try("ip", "link", "del", bridge)


def _connect(space: str, bridge: str, address: str, number: int, speed: float) -> None:
    """Make a namespace with an interface of a given speed (MB/s) on a bridge."""
    here, there = f"{bridge}-{number}", "eth0"
    _run("ip", "netns", "add", space)
    _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", space)
    _run("ip", "link", "set", here, "master", bridge, "up")
    _run("ip", "-n", space, "addr", "add", address, "dev", there)
    _run("ip", "-n", space, "link", "set", "lo", "up")
    _run("ip", "-n", space, "link", "set", there, "up")
    _run("tc", "qdisc", "add", "dev", here, *_shape(speed))
    _run("tc", "-n", space, "qdisc", "add", "dev", there, *_shape(speed))


def _shape(speed: float) -> tuple[str, ...]:
    rate, burst = f"{round(8000 * speed)}kbit", f"{_BURST_BYTES}b"
    return ("root", "tbf", "rate", rate, "burst", burst, "latency", f"{_LONGEST_MS}ms")


def _run(*command: str) -> None:
    done = _try(*command)
    if done.returncode:
        said = f"{' '.join(command)}: {done.stderr.strip()}"
        raise LinkError(f"links cannot be shaped here (it takes root on Linux): {said}")


def _try(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own command


def _remove_leftovers() -> None:
    """Remove what killed runs have left behind."""
    for line in _try("ip", "netns", "list").stdout.splitlines():
        match = re.match(rf"({_PREFIX}(\d+)-\d+)\b", line)
        if match and not psutil.pid_exists(int(match[2])):
            _try("ip", "netns", "del", match[1])
            _try("ip", "link", "del", f"sp{match[2]}")
