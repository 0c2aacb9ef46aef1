"""Real brokers for tests, each on a free loopback port with a folder of its own, ended with the test."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from splitplace.commands.processes.broker import Broker, StartedKind, started_broker


@contextlib.contextmanager
def running_broker(kind: StartedKind) -> Iterator[Broker]:
    """A broker that the test may `kill()` and `start()` again on the same port."""
    with (
        tempfile.TemporaryDirectory(prefix="splitplace-broker-") as folder,
        started_broker(Path(folder), kind=kind) as broker,
    ):
        yield broker


@contextlib.contextmanager
def mosquitto_broker() -> Iterator[str]:
    """URL of a Mosquitto of its own."""
    with running_broker("mosquitto") as broker:
        yield broker.url


@contextlib.contextmanager
def embedded_broker() -> Iterator[str]:
    """URL of a rumqttd (the broker that pip can install) of its own."""
    with running_broker("embedded") as broker:
        yield broker.url
