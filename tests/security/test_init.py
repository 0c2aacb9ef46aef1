"""`splitplace secure init` makes a system with users, once, and only where a broker can hold it."""

import ssl
from pathlib import Path
from unittest.mock import Mock

import pytest

from splitplace.commands.processes import broker as broker_module
from splitplace.commands.processes.secured_mosquitto import NoPluginError, plugin_path
from splitplace.commands.secure import init
from splitplace.commands.secure.authority import Authority
from tests.support.secured import splitplace

pytestmark = pytest.mark.mosquitto


def test_init_makes_everything_and_overwrites_nothing(tmp_path: Path) -> None:
    where = ("--state-dir", str(tmp_path))
    shown = splitplace("secure", "init", "--host", "hub.example", "--host", "192.0.2.7", *where)
    assert shown.code == 0, shown.errors
    assert "mqtts://hub.example:8883" in shown.out
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = splitplace("secure", "init", *where)
    assert (again.code, "is secured already" in again.errors) == (2, True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_init_that_cannot_end_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--state-dir", str(tmp_path))
    for error in (OSError(28, "No space left on device", "broker.pem"), KeyboardInterrupt()):
        with monkeypatch.context() as patch:
            patch.setattr(Authority, "sign_broker", Mock(side_effect=error))
            assert splitplace("secure", "init", *where).code != 0
        assert not (tmp_path / "secure").exists()
    assert splitplace("secure", "init", *where).code == 0


def test_what_a_power_cut_left_of_init_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "secure" / "authority").mkdir(parents=True)
    shown = splitplace("secure", "init", "--state-dir", str(tmp_path))
    assert (shown.code, "move it away, and try again" in shown.errors) == (2, True)


def test_the_certificate_is_for_all_names_and_signed_by_the_authority(tmp_path: Path) -> None:
    shown = splitplace("secure", "init", "--host", "hub.example", "--state-dir", str(tmp_path))
    assert shown.code == 0, shown.errors
    broker, authority = tmp_path / "secure" / "broker", tmp_path / "secure" / "authority"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(broker / "broker.pem", broker / "broker.key")
    trusting = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    for name in ("hub.example", "localhost", "127.0.0.1"):
        _handshake(context, trusting, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(context, trusting, "another.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(context, ssl.create_default_context(cadata=Authority.new().pem), "hub.example")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Shake hands in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(down, up, server_hostname=name), server.wrap_bio(up, down, server_side=True))
    left = list(ends)
    while left:
        for end in tuple(left):
            try:
                end.do_handshake()
                left.remove(end)
            except ssl.SSLWantReadError:
                pass


@pytest.mark.parametrize("host", ["", "a b", "x/y", "*", "-", "ü.example", "a..b", "x" * 300])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    shown = splitplace("secure", "init", "--host", host, "--state-dir", str(tmp_path))
    assert shown.code == 2
    assert not (tmp_path / "secure").exists()


def test_with_the_embedded_broker_it_refuses_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init, "mosquitto_path", lambda: None)
    shown = splitplace("secure", "init", "--state-dir", str(tmp_path))
    assert (shown.code, "knows neither users nor access rules" in shown.errors) == (1, True)
    assert not (tmp_path / "secure").exists()


def test_the_embedded_broker_is_not_started_for_a_secured_system(tmp_path: Path) -> None:
    assert splitplace("secure", "init", "--state-dir", str(tmp_path)).code == 0
    shown = splitplace("broker", "--kind", "embedded", "--state-dir", str(tmp_path))
    assert (shown.code, broker_module.NO_USERS in shown.errors) == (1, True)


def test_without_the_plugin_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(NoPluginError, match="apt install mosquitto"):
        plugin_path(tmp_path)
