"""Fixtures for all tests."""

from collections.abc import Iterator
from typing import cast

import pytest

from tests.support.brokers import BrokerKind, BrokerProcess


@pytest.fixture(params=["mosquitto", "embedded"])
def broker_kind(request: pytest.FixtureRequest) -> BrokerKind:
    """A test that asks for this runs once with each kind of broker."""
    return cast("BrokerKind", request.param)


@pytest.fixture
def broker(broker_kind: BrokerKind) -> Iterator[BrokerProcess]:
    """A fresh broker that a test may kill and start again; once with each kind."""
    with BrokerProcess(broker_kind) as process:
        yield process


@pytest.fixture
def broker_url(broker: BrokerProcess) -> str:
    """URL of a fresh broker; once with each kind."""
    return broker.url


@pytest.fixture
def mosquitto_url() -> Iterator[str]:
    """URL of a fresh Mosquitto, for what does not depend on the kind of broker."""
    with BrokerProcess("mosquitto") as process:
        yield process.url
