"""Links of a given speed for the processes of a benchmark: network namespaces and `tc`, or a proxy."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass

from nemesis.proxy import Link

MEGABIT_BYTES = 125_000
_BURST = "16kb"
_QUEUE = "2000ms"


@dataclass(frozen=True, slots=True)
class ShapedLink:
    """A link between the broker and processes that run with a prefix to their command."""

    url: str
    """The broker, as seen from its far end."""
    prefix: tuple[str, ...]
    """What a command must begin with to run there."""
    how: str


def can_make_namespaces() -> bool:
    """Whether this process may make network namespaces and shape their links."""
    if os.geteuid():
        return False
    name = f"splitplace-probe-{os.getpid()}"
    with contextlib.suppress(OSError):
        if _quiet("ip", "netns", "add", name):
            shaped = _quiet("ip", "netns", "exec", name, "tc", *_shape("lo", 1.0))
            _quiet("ip", "netns", "del", name)
            return shaped
    return False


@contextlib.asynccontextmanager
async def shaped_link(
    port: int, host: str, megabits: float, *, number: int = 0, namespaces: bool | None = None
) -> AsyncIterator[ShapedLink]:
    """Make a link to a broker with the same speed in both directions.

    Args:
        port: the broker's port.
        host: the broker's address.
        megabits: its speed in Mbit/s.
        number: tells several links of one process apart; at most 200.
        namespaces: whether to use network namespaces; by default where they can be made.
    """
    if namespaces is None:
        namespaces = await asyncio.to_thread(can_make_namespaces)
    if not namespaces:
        link = Link(port, host)
        await link.start()
        link.up.bytes_per_s = link.down.bytes_per_s = megabits * MEGABIT_BYTES
        try:
            yield ShapedLink(f"mqtt://127.0.0.1:{link.port}", (), "proxy")
        finally:
            await link.stop()
        return
    name, near = f"splitplace-{os.getpid()}-{number}", f"sp{os.getpid() % 100_000}n{number}"
    far, net = f"{near}f", f"10.{77 + os.getpid() % 100}.{number + 1}"
    try:
        for command in (
            f"ip netns add {name}",
            f"ip -n {name} link set lo up",
            f"ip link add {near} type veth peer name {far}",
            f"ip link set {far} netns {name}",
            f"ip addr add {net}.1/30 dev {near}",
            f"ip link set {near} up",
            f"ip -n {name} addr add {net}.2/30 dev {far}",
            f"ip -n {name} link set {far} up",
        ):
            await asyncio.to_thread(subprocess.run, command.split(), check=True)
        await asyncio.to_thread(subprocess.run, ["tc", *_shape(near, megabits)], check=True)
        inside = ["ip", "netns", "exec", name, "tc", *_shape(far, megabits)]
        await asyncio.to_thread(subprocess.run, inside, check=True)
        relay = Link(port, host, listen=f"{net}.1")
        await relay.start()
        try:
            prefix = ("ip", "netns", "exec", name)
            yield ShapedLink(f"mqtt://{net}.1:{relay.port}", prefix, "network namespace")
        finally:
            await relay.stop()
    finally:
        await asyncio.to_thread(_quiet, "ip", "link", "del", near)
        await asyncio.to_thread(_quiet, "ip", "netns", "del", name)


def _shape(device: str, megabits: float) -> list[str]:
    shape = f"qdisc add dev {device} root tbf rate {megabits}mbit burst {_BURST} latency {_QUEUE}"
    return shape.split()


def _quiet(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603 - fixed commands
