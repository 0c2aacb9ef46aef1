"""Addresses under which others reach this device."""

import psutil
import pytest

from splitplace.bus.own_addresses import own_addresses


def test_a_sandbox_that_hides_the_interfaces_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(97, "Address family not supported by protocol")

    seen = set(own_addresses())
    monkeypatch.setattr(psutil, "net_if_addrs", refused)
    assert set(own_addresses()) <= seen
