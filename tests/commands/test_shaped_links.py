"""Links of a given speed, where this user may make them."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from splitplace.commands.processes.broker import LOOPBACK
from splitplace.commands.processes.shaped_links import LinkError, shaped_links

SIZE = 500_000
RECEIVE = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as link:
    link.sendall(b"!")
    left = int(sys.argv[3])
    while left:
        left -= len(link.recv(65536))
    link.sendall(b"!")
"""


def seconds(within: Sequence[str], host: str) -> float:
    """Return the time in which a process takes in `SIZE` bytes from here."""
    with socket.create_server((host, 0)) as server:
        port = server.getsockname()[1]
        command = [*within, sys.executable, "-c", RECEIVE, host, str(port), str(SIZE)]
        with subprocess.Popen(command) as process, server.accept()[0] as link:
            link.recv(1)
            began = time.monotonic()
            link.sendall(bytes(SIZE))
            link.recv(1)
            took = time.monotonic() - began
        assert process.returncode == 0
    return took


def test_without_speeds_everything_uses_the_loopback() -> None:
    with shaped_links({}) as links:
        assert (links.host, links.within) == (LOOPBACK, {})


def test_whoever_lacks_the_tools_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LinkError, match=r"ip and tc and nsenter \(iproute2"), shaped_links({"a": 1.0}):
        pass


def _may_shape() -> bool:
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc", "nsenter"))):
        return False
    probe = f"splitplace-{os.getpid()}-0"
    made = subprocess.run(["ip", "netns", "add", probe], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "del", probe], check=False, capture_output=True)
    return made.returncode == 0


def test_each_link_is_as_fast_as_was_said_and_gone_afterwards() -> None:
    if not _may_shape():
        with pytest.raises(LinkError), shaped_links({"a": 1.0}):
            pass
        return
    with shaped_links({"slow": 0.25, "fast": 25.0}) as links:
        slow, fast = (seconds(links.within[name], links.host) for name in ("slow", "fast"))
    assert slow > 0.8 * SIZE / 250_000
    assert slow > 5 * fast
    left = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    assert f"splitplace-{os.getpid()}-" not in left
