"""The authority is replaced against a real Mosquitto: nobody is lost on the way, and the old one ends."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitplace.bus.connection import Bus
from splitplace.commands.secure.authority import Authority, AuthorityError
from splitplace.commands.secure.enroller import Enroller
from splitplace.edge_node.joining import join
from splitplace.edge_node.settings import NodeSettings
from splitplace.edge_node.trust import Trust
from splitplace.messages.topics import AUTHORITY, ENROLLER, GATEWAY, OPERATOR
from splitplace.storage.credentials import Credentials
from splitplace.storage.secured import SecuredFolder
from tests.support.running import running
from tests.support.secured import (
    PREFIX,
    Refused,
    Secured,
    Visitor,
    secure,
    secured_broker,
    token_for,
    visiting,
)
from tests.support.waiting import block_until, until

pytestmark = pytest.mark.mosquitto


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    with secured_broker(tmp_path / "state") as started:
        yield started


def rotate(secured: Secured, *options: str) -> str:
    """As typed; `splitplace broker` would take the new certificate by itself."""
    shown = secure(secured, "rotate", "authority", *options)
    assert shown.code == 0, shown.errors
    before = _certificate(secured)
    secured.broker.restart()
    assert _certificate(secured) != before
    return shown.out


def _certificate(secured: Secured) -> str:
    return ssl.get_server_certificate((secured.facts.hosts[0], secured.facts.port))


def is_trusted(secured: Secured, authority: str) -> bool:
    """Whether somebody who trusts this believes the broker's certificate."""
    context = ssl.create_default_context(cadata=authority)
    host, port = secured.facts.hosts[0], secured.facts.port
    try:
        with (
            socket.create_connection((host, port)) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except ssl.SSLCertVerificationError:
        return False


def test_old_and_new_authority_are_trusted_until_the_end_of_the_rotation(secured: Secured) -> None:
    old = secured.credentials(GATEWAY).authority
    shown = rotate(secured)
    assert "--finish" in shown
    both = secured.credentials(GATEWAY).authority
    new = Authority.load(secured.folder.authority).pem
    assert both.count("BEGIN CERTIFICATE") == 2
    assert [is_trusted(secured, each) for each in (old, both, new)] == [True, True, True]
    rotate(secured, "--finish")
    assert [is_trusted(secured, each) for each in (old, both, new)] == [False, True, True]
    assert secured.credentials(GATEWAY).authority.strip() == new.strip()
    assert not is_trusted(secured, Authority.new().pem)


def test_what_the_broker_keeps_outlives_the_rotation(secured: Secured) -> None:
    with visiting(secured, GATEWAY) as gateway:
        assert gateway.may_publish(f"{PREFIX}/service/{GATEWAY}/status", b"kept", retain=True)
    for options in ((), ("--finish",)):
        rotate(secured, *options)
        with visiting(secured, OPERATOR) as operator:
            assert operator.may_subscribe(f"{PREFIX}/service/+/status")
            block_until(lambda: b"kept" in operator.received.values())


def test_the_broker_gets_another_certificate_during_a_rotation(secured: Secured) -> None:
    old = secured.credentials(GATEWAY).authority
    rotate(secured)
    assert secure(secured, "rotate", "broker").code == 0
    secured.broker.restart()
    assert is_trusted(secured, old)


def test_a_rotation_is_not_begun_twice_and_not_finished_before_it_began(secured: Secured) -> None:
    shown = secure(secured, "rotate", "authority", "--finish")
    assert (shown.code, "begin with" in shown.errors) == (1, True)
    rotate(secured)
    shown = secure(secured, "rotate", "authority")
    assert (shown.code, "--finish" in shown.errors) == (1, True)
    rotate(secured, "--finish")
    rotate(secured)
    shown = secure(secured, "rotate", GATEWAY, "--finish")
    assert (shown.code, "--finish is for" in shown.errors) == (2, True)


def test_files_that_were_copied_are_named(secured: Secured) -> None:
    assert secure(secured, "add", "sensor", "camera").code == 0
    shown = rotate(secured)
    assert "camera.toml" in shown
    assert "gateway.toml" not in shown


def test_a_certificate_and_a_key_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    """As a crash between the two files would leave them."""
    for each in ("a", "b"):
        (tmp_path / each).mkdir()
        Authority.new().save(tmp_path / each)
    (tmp_path / "a" / "ca.pem").write_text((tmp_path / "b" / "ca.pem").read_text())
    with pytest.raises(AuthorityError, match="do not belong together"):
        Authority.load(tmp_path / "a")


def authority_in(file: Path) -> str:
    return Credentials.load(file).authority.strip()


async def test_a_node_takes_the_new_authority_over_a_trusted_connection(
    secured: Secured, tmp_path: Path
) -> None:
    token = await asyncio.to_thread(token_for, secured, "kitchen")
    async with running(Enroller(secured.settings(ENROLLER)).run()):
        file = await asyncio.to_thread(join, token, SecuredFolder(tmp_path / "device" / "secure").users)
    settings = NodeSettings(credentials=file, node="kitchen")
    for options in ((), ("--finish",)):
        await asyncio.to_thread(rotate, secured, *options)
        bus = Bus(settings, "splitplace-kitchen")
        bus.subscribe(AUTHORITY, Trust(settings).take)
        async with running(Enroller(secured.settings(ENROLLER)).run()), bus:
            await until(lambda: authority_in(file) == authority_in(secured.folder.users.file(ENROLLER)))
    own = Credentials.load(file)
    assert own.authority.count("BEGIN CERTIFICATE") == 1
    assert own.password
    Visitor(secured.facts, own.username, own.password, own.authority).connect().close()


async def test_a_node_takes_no_authority_that_has_not_signed_the_brokers_certificate(
    secured: Secured, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = await asyncio.to_thread(token_for, secured, "cellar")
    async with running(Enroller(secured.settings(ENROLLER)).run()):
        file = await asyncio.to_thread(join, token, SecuredFolder(tmp_path / "device" / "secure").users)
    before = file.read_bytes()
    trust = Trust(NodeSettings(credentials=file, node="cellar"))
    await asyncio.to_thread(trust._take, file, Authority.new().pem)
    assert file.read_bytes() == before
    assert "has not signed" in caplog.text


def test_only_the_enroller_tells_of_authorities(secured: Secured) -> None:
    assert secure(secured, "add", "sensor", "thief").code == 0
    for name in (GATEWAY, "operator", "thief"):
        with visiting(secured, name) as user:
            assert not user.may_publish(f"{PREFIX}/authority", retain=True), name
    with pytest.raises(Refused):
        Visitor(secured.facts, ENROLLER, "guess", secured.credentials(GATEWAY).authority).connect()
