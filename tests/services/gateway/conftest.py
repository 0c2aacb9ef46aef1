"""Settings of the gateways in these tests."""

from pathlib import Path

import pytest

from splitplace.services.gateway.settings import GatewaySettings


@pytest.fixture
def settings(broker_url: str, tmp_path: Path) -> GatewaySettings:
    return GatewaySettings(broker=broker_url, journal=tmp_path / "journal", stall_ms=300.0, grace_ms=200.0)
