"""Real brokers for tests, each on a free loopback port with a folder of its own, ended with the test."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitplace.commands.processes import broker as broker_module
from splitplace.commands.processes.broker import (
    LOOPBACK,
    MOSQUITTO_SETTINGS,
    Broker,
    StartedKind,
    started_broker,
)


def own_loopback() -> str:
    """A loopback address for this process, where the system has more than one.

    The port of a broker that a test kills and starts again then stays free: neither another process nor an
    outgoing connection can take it meanwhile.
    """
    if sys.platform != "linux":
        return LOOPBACK
    process = os.getpid() % (1 << 22)
    return f"127.{64 + (process >> 16)}.{process >> 8 & 0xFF}.{process & 0xFF}"


@contextlib.contextmanager
def running_broker(kind: StartedKind, folder: Path | None = None) -> Iterator[Broker]:
    """A broker that the test may `kill()` and `start()` again on the same port."""
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="splitplace-broker-")))
        yield stack.enter_context(started_broker(folder, kind=kind, host=own_loopback()))


@contextlib.contextmanager
def ruled_broker(folder: Path, monkeypatch: pytest.MonkeyPatch, rules: str) -> Iterator[Broker]:
    """A Mosquitto with an access list of its own, written into a folder."""
    file = folder / "acl"
    file.write_text(rules)
    file.chmod(0o644)
    folder.chmod(0o755)
    monkeypatch.setattr(broker_module, "MOSQUITTO_SETTINGS", {**MOSQUITTO_SETTINGS, "acl_file": str(file)})
    with running_broker("mosquitto") as running:
        yield running
