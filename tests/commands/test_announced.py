"""Commands announce what others can reach."""

import socket

import pytest

from splitplace.bus import discovery
from splitplace.bus.discovery import find_brokers
from splitplace.commands.processes.broker import free_port
from splitplace.commands.shared.announced import announced
from tests.support.brokers import own_loopback
from tests.support.waiting import block_until

LOOPBACK = ("127.0.0.1",)


def ports() -> set[int]:
    return {each.port for each in find_brokers(interfaces=LOOPBACK)}


def test_a_broker_is_announced_once_it_listens_and_until_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    address = own_loopback()
    port = free_port(address)
    said = ""

    def has_said(words: str) -> bool:
        nonlocal said
        out, err = capfd.readouterr()
        said += out + err
        return words in said

    with announced([address], port, "a/b", has_users=False, interfaces=LOOPBACK):
        block_until(lambda: has_said("not announced yet: nobody listens"))
        with socket.create_server((address, port)):
            block_until(lambda: has_said("announced in this network"))
            assert port in ports()
    assert port not in ports()


def test_a_command_goes_on_where_nothing_can_be_announced(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_interfaces: object) -> None:
        raise OSError("no multicast")

    monkeypatch.setattr(discovery, "_multicast", fail)
    address = own_loopback()
    said = ""

    def has_said() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "not announced in this network: mDNS cannot be used here: no multicast" in said

    with (
        socket.create_server((address, 0)) as server,
        announced([address], server.getsockname()[1], "a/b", has_users=False, interfaces=LOOPBACK),
    ):
        block_until(has_said)
    assert find_brokers() == ()
