"""Fixtures for all tests."""

from collections.abc import Iterator
from typing import cast

import pytest

from bus.broker import Broker, StartedKind
from tests.support.brokers import running_broker


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
    """URL of a fresh Mosquitto, for what does not depend on the kind of broker."""
    with running_broker("mosquitto") as running:
        yield running.url
