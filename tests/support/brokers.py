"""Real brokers for tests, each on a free loopback port with a folder of its own, ended with the test."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from splitplace.commands.processes.broker import LOOPBACK, Broker, StartedKind, started_broker


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
