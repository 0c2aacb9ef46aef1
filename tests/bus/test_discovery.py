"""Brokers are announced and found by mDNS, over loopback only."""

import io
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import zeroconf

from splitplace.bus import discovery
from splitplace.bus.discovery import (
    SERVICE_TYPE,
    FindingSettings,
    FoundBroker,
    announcing,
    find_brokers,
    wait_for_broker,
    with_broker,
)
from splitplace.errors import ConfigurationError
from tests.support.brokers import own_loopback

OPEN = FoundBroker("shed-1883", "192.0.2.7", 1883, "shed/v1", has_users=False)
OTHER = FoundBroker("attic-1883", "192.0.2.8", 1883, "splitplace/v1", has_users=False)
SECURED = FoundBroker("hub-8883", "192.0.2.9", 8883, "splitplace/v1", has_users=True)
LOOPBACK = ("127.0.0.1",)
SEARCHES = 5
"""On a busy machine an answer may come when a search has ended."""


@pytest.fixture(autouse=True)
def _nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITPLACE_DISCOVER", "true")
    monkeypatch.setattr(discovery, "listens", lambda address, _port: address != "127.0.0.1")


@contextmanager
def listening(address: str) -> Iterator[int]:
    with socket.create_server((address, 0)) as server:
        yield server.getsockname()[1]


def nobody_looks() -> list[FoundBroker]:
    raise AssertionError("the network was searched")


def test_what_is_announced_is_found_with_prefix_and_users() -> None:
    address = own_loopback()
    with ExitStack() as stack:
        first, second = (stack.enter_context(listening(address)) for _ in range(2))
        for port, prefix, has_users in ((first, "shed/v1", False), (second, "splitplace/v1", True)):
            announcement = announcing([address], port, prefix, has_users=has_users, interfaces=LOOPBACK)
            stack.enter_context(announcement)
        found: dict[int, FoundBroker] = {}
        for _ in range(SEARCHES):
            heard = find_brokers(interfaces=LOOPBACK)
            # Others on this machine may announce theirs.
            found |= {each.port: each for each in heard if each.address == address}
            if {first, second} <= found.keys():
                break
    assert (found[first].url, found[first].prefix) == (f"mqtt://{address}:{first}", "shed/v1")
    assert (found[second].url, found[second].has_users) == (f"mqtts://{address}:{second}", True)


def test_a_broker_that_two_processes_announce_is_one() -> None:
    address = own_loopback()
    with listening(address) as port, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(announcing([address], port, "a/b", has_users=False, interfaces=LOOPBACK))
        found = [each for each in find_brokers(interfaces=LOOPBACK) if each.port == port]
    assert len(found) == 1


@pytest.mark.parametrize("prefix", [b"#", b"", b"a/+/b", b"\xff\xfe", None])
def test_an_announcement_that_makes_no_sense_is_ignored_or_harmless(prefix: bytes | None) -> None:
    address = own_loopback()
    properties = {"prefix": prefix, "users": b"perhaps"} if prefix is not None else {}
    info = zeroconf.ServiceInfo(
        SERVICE_TYPE,
        f"odd-{address}.{SERVICE_TYPE}",
        port=1,
        parsed_addresses=[address],
        properties=properties,
        server="odd.splitplace.local.",
    )
    broker = discovery._broker(info)
    assert broker is None or not set("#+\0") & set(broker.prefix)


@pytest.mark.parametrize(
    "given", [{"broker": "mqtt://192.0.2.1"}, {"discover": False}, {"username": "anna", "password": "p"}]
)
def test_nobody_looks_where_a_broker_is_named_or_a_password_could_be_sent(given: dict[str, object]) -> None:
    settings = FindingSettings.load(**given)
    assert with_broker(settings, find=nobody_looks) is settings


def test_nobody_looks_where_a_broker_runs_on_this_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "listens", lambda _address, _port: True)
    settings = FindingSettings.load()
    assert with_broker(settings, find=nobody_looks) is settings


def test_the_only_broker_is_used_with_its_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    settings = with_broker(FindingSettings.load(), find=lambda: [OPEN])
    assert (settings.broker, settings.prefix) == ("mqtt://192.0.2.7:1883", "shed/v1")
    assert settings.is_open_to_others
    assert "found mqtt://192.0.2.7:1883" in capsys.readouterr().err
    settings = with_broker(FindingSettings.load(prefix="mine"), find=lambda: [OPEN])
    assert settings.prefix == "mine"


def test_a_broker_with_users_is_not_used_without_credentials() -> None:
    with pytest.raises(ConfigurationError, match=r"users only.*--join"):
        with_broker(FindingSettings.load(), find=lambda: [SECURED])


def test_where_there_are_several_and_nobody_can_be_asked_all_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(ConfigurationError) as error:
        with_broker(FindingSettings.load(), find=lambda: [OTHER, OPEN])
    assert all(each.url in str(error.value) for each in (OTHER, OPEN))
    assert "--broker" in str(error.value)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_where_there_are_several_the_user_is_asked_until_the_answer_makes_sense(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", _Terminal("3\nwhat\n2\n"))
    monkeypatch.setattr("sys.stderr", shown := _Terminal())
    settings = with_broker(FindingSettings.load(), find=lambda: [OTHER, OPEN])
    assert settings.broker == OPEN.url
    assert shown.getvalue().count("Which broker (1 to 2)?") == 3


def test_whoever_ends_the_input_chooses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", _Terminal(""))
    monkeypatch.setattr("sys.stderr", _Terminal())
    with pytest.raises(ConfigurationError, match="--broker"):
        with_broker(FindingSettings.load(), find=lambda: [OTHER, OPEN])


def test_a_node_waits_until_there_is_a_broker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(discovery, "_PAUSE_S", 0.0)
    rounds = iter([[], [], [OPEN]])
    settings = wait_for_broker(FindingSettings.load(), find=lambda: next(rounds))
    assert settings.broker == OPEN.url
    assert capsys.readouterr().err.count("waiting for one") == 1
