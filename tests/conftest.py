"""Fixtures for all tests, and how they run side by side."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from hypothesis import HealthCheck, settings

from splitplace.commands.processes.broker import Broker, StartedKind, mosquitto_path
from tests.support.alone import turn
from tests.support.brokers import running_broker
from tests.support.leaks import left_processes, left_threads

# A busy machine is no reason to fail: what must be quick is measured by tests of its own.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

MAX_WORKERS = 8
TURNS = pytest.StashKey[Path]()
"""Folder of the locks by which the workers of a parallel run take turns."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run a selection of single tests in this process, where debuggers work, and all else on every core.

    Many tests wait for processes and brokers most of the time, so there are more workers than cores.
    """
    if config.option.keyword or any("::" in argument for argument in config.args):
        return 0
    cores = len(os.sched_getaffinity(0))
    return min(cores + cores // 2, MAX_WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of locks, or take the one that the controlling process has made."""
    given = getattr(config, "workerinput", {}).get("turns")
    if given is not None:
        config.stash[TURNS] = Path(given)
    elif getattr(config.option, "numprocesses", None):
        config.stash[TURNS] = Path(tempfile.mkdtemp(prefix="splitplace-tests-"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker where the locks are."""
    node.workerinput["turns"] = str(node.config.stash[TURNS])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder of locks."""
    if TURNS in config.stash and not hasattr(config, "workerinput"):
        shutil.rmtree(config.stash[TURNS], ignore_errors=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Wait for the test's turn; before its timeout begins to count."""
    folder = item.config.stash.get(TURNS, None)
    if folder is None:
        return (yield)
    with turn(folder, alone=item.get_closest_marker("serial") is not None):
        return (yield)


@pytest.fixture(autouse=True, scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where tests and their processes keep state by default: not where the user of this machine does."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLITPLACE_STATE_DIR", str(folder))
        patch.setenv("SPLITPLACE_DISCOVER", "false")  # tests use no network but loopback
        patch.setenv("SPLITPLACE_ANNOUNCE", "false")
        yield folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs Mosquitto where there is none: nobody must install it. CI does."""
    if mosquitto_path() is not None:
        return
    left_out = [item for item in items if _needs_mosquitto(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _needs_mosquitto(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    kinds = [value for value in call.params.values() if isinstance(value, str)] if call else []
    return "mosquitto" in kinds or item.get_closest_marker("mosquitto") is not None


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Fail where the tests of a file leave a process or a thread behind."""
    processes, threads = psutil.Process().children(recursive=True), threading.enumerate()
    yield
    left = left_processes(processes) + left_threads(threads)
    assert left == []


@pytest.fixture(params=["mosquitto", "embedded"])
def broker_kind(request: pytest.FixtureRequest) -> StartedKind:
    """A test that asks for this runs once with each kind of broker."""
    return cast("StartedKind", request.param)


@pytest.fixture
def broker(broker_kind: StartedKind) -> Iterator[Broker]:
    """A fresh broker that a test may kill and start again; once with each kind."""
    with running_broker(broker_kind) as running:
        yield running


@pytest.fixture
def broker_url(broker: Broker) -> str:
    """URL of a fresh broker; once with each kind."""
    return broker.url


@pytest.fixture
def mosquitto_url() -> Iterator[str]:
    """URL of a fresh Mosquitto, or of another where there is none: for what does not depend on the kind."""
    with running_broker("mosquitto" if mosquitto_path() else "embedded") as running:
        yield running.url
