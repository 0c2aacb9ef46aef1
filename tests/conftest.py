"""Fixtures for all tests."""

from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import HealthCheck, settings

from splitplace.commands.processes.broker import Broker, StartedKind, mosquitto_path
from tests.support.brokers import running_broker

# A busy machine is no reason to fail: what must be quick is measured by tests of its own.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs Mosquitto where there is none: nobody must install one. CI does."""
    if mosquitto_path() is not None:
        return
    left_out = [item for item in items if _needs_mosquitto(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _needs_mosquitto(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    kinds = [value for value in call.params.values() if isinstance(value, str)] if call else []
    return "mosquitto" in kinds or item.get_closest_marker("mosquitto") is not None


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
