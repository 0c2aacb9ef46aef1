"""A token lets one device in, once; a replayed, expired or foreign one lets in nobody."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from splitplace.commands.secure.control import controlling
from splitplace.commands.secure.enroller import Enroller, NotAdmittedError, admit
from splitplace.edge_node.joining import join
from splitplace.edge_node.settings import NodeSettings
from splitplace.errors import UnreachableError
from splitplace.messages.joining import JoinRequest
from splitplace.messages.topics import ENROLLER
from splitplace.security.passwords import draw_password
from splitplace.security.tokens import Token, TokenError
from splitplace.storage.credentials import Credentials
from splitplace.storage.secured import SecuredFolder, UsersFolder
from tests.support.running import running
from tests.support.secured import (
    PREFIX,
    Refused,
    Secured,
    Visitor,
    secure_in_thread,
    secured_broker,
    token_for,
)
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("state")) as started:
        yield started


@contextlib.asynccontextmanager
async def enrolling(secured: Secured) -> AsyncIterator[None]:
    async with running(Enroller(secured.settings(ENROLLER)).run()):
        yield


def device(tmp_path: Path, name: str = "pi") -> UsersFolder:
    return SecuredFolder(tmp_path / name / "secure").users


async def invited(secured: Secured, node: str, *options: str) -> Token:
    return await asyncio.to_thread(token_for, secured, node, *options)


async def test_a_node_joins_with_a_token_and_has_a_user_of_its_own(secured: Secured, tmp_path: Path) -> None:
    token = await invited(secured, "kitchen")
    async with enrolling(secured):
        file = await asyncio.to_thread(join, token, device(tmp_path))
    own = Credentials.load(file)
    assert (own.kind, own.name, own.username, own.broker) == ("node", "kitchen", "kitchen", secured.facts.url)
    assert file.stat().st_mode & 0o777 == 0o600
    assert own.authority.strip() == secured.credentials(ENROLLER).authority.strip()
    node = Visitor(secured.facts, own.username, own.password, own.authority).connect()
    assert node.may_publish(f"{PREFIX}/node/kitchen/status")
    assert not node.may_publish(f"{PREFIX}/node/cellar/status")
    node.close()
    settings = NodeSettings.load(state_dir=tmp_path / "pi")
    assert (settings.node, settings.username) == ("kitchen", "kitchen")


async def test_a_second_start_with_the_same_token_asks_nobody(secured: Secured, tmp_path: Path) -> None:
    token = await invited(secured, "n2")
    async with enrolling(secured):
        file = await asyncio.to_thread(join, token, device(tmp_path))
    before = file.read_bytes()
    assert (
        await asyncio.to_thread(join, replace(token, broker="mqtts://nowhere.invalid:1"), device(tmp_path))
        == file
    )
    assert file.read_bytes() == before


async def test_a_replayed_token_lets_in_nobody(secured: Secured, tmp_path: Path) -> None:
    token = await invited(secured, "n3")
    async with enrolling(secured):
        await asyncio.to_thread(join, token, device(tmp_path))
        with pytest.raises(TokenError, match="has expired, was used or was withdrawn"):
            await asyncio.to_thread(join, token, device(tmp_path, "thief"))
    assert list(device(tmp_path, "thief").names()) == []


async def test_an_expired_token_lets_in_nobody(secured: Secured, tmp_path: Path) -> None:
    token = await invited(secured, "n4", "--valid", "1ms")
    async with controlling(secured.settings(ENROLLER)) as control:
        with pytest.raises(NotAdmittedError, match="expired"):  # also before it was swept away
            await admit(control, JoinRequest(node="n4", password=draw_password()), time.time() + 1)
    async with enrolling(secured):
        with pytest.raises(TokenError):
            await asyncio.to_thread(join, token, device(tmp_path))


async def test_the_token_of_a_node_that_was_removed_lets_in_nobody(secured: Secured, tmp_path: Path) -> None:
    """Neither before it was used, nor with the credentials that it has made."""
    unused = await invited(secured, "n12")
    assert await asyncio.to_thread(secure_in_thread, secured, "remove", "n12")
    used = await invited(secured, "n13")
    async with enrolling(secured):
        with pytest.raises(TokenError):
            await asyncio.to_thread(join, unused, device(tmp_path))
        own = Credentials.load(await asyncio.to_thread(join, used, device(tmp_path)))
        assert await asyncio.to_thread(secure_in_thread, secured, "remove", "n13")
        with pytest.raises(TokenError):
            await asyncio.to_thread(join, used, device(tmp_path, "thief"))
    with pytest.raises(Refused):
        Visitor(secured.facts, own.username, own.password, own.authority).connect()


async def test_a_token_whose_end_was_forged_lets_in_nobody(secured: Secured, tmp_path: Path) -> None:
    """The device's copy of the time counts for nothing: the enroller has its own."""
    token = await invited(secured, "n14", "--valid", "1ms")
    forged = replace(token, expires_s=token.expires_s + 86_400)
    await until(lambda: time.time() > token.expires_s + 1)
    async with enrolling(secured):
        with pytest.raises(TokenError):
            await asyncio.to_thread(join, forged, device(tmp_path))


async def test_a_token_for_one_node_makes_no_other(secured: Secured, tmp_path: Path) -> None:
    token = await invited(secured, "n15")
    for login in ("n1", "gateway"):
        forged = replace(token, login=login)
        async with enrolling(secured):
            with pytest.raises((TokenError, UnreachableError)):
                await asyncio.to_thread(join, forged, device(tmp_path, f"as-{login}"))
            async with controlling(secured.settings(ENROLLER)) as control:
                logins = {each.login: each.kind for each in await control.logins()}
        assert logins.get("n1") != "node"
        assert logins["gateway"] == "service"


async def test_a_newer_token_makes_the_older_void(secured: Secured, tmp_path: Path) -> None:
    older, newer = await invited(secured, "n5"), await invited(secured, "n5")
    async with enrolling(secured):
        with pytest.raises(TokenError):
            await asyncio.to_thread(join, older, device(tmp_path))
        await asyncio.to_thread(join, newer, device(tmp_path))


async def test_a_broker_with_another_authority_gets_nothing(secured: Secured, tmp_path: Path) -> None:
    token = await invited(secured, "n6")
    with pytest.raises(TokenError, match="not the one that made this token"):
        await asyncio.to_thread(join, replace(token, authority=os.urandom(32)), device(tmp_path))
    assert not device(tmp_path).path.exists()


async def test_a_lost_answer_locks_nobody_out(secured: Secured, tmp_path: Path) -> None:
    token = await invited(secured, "n7")
    with pytest.raises(UnreachableError):  # nobody enrolls: as if the answer were lost
        await asyncio.to_thread(_join_with_little_patience, token, device(tmp_path))
    (pending,) = device(tmp_path).path.glob(".*.pending")
    request = JoinRequest(node="n7", password=Credentials.load(pending).password)
    async with controlling(secured.settings(ENROLLER)) as control:
        newcomer = await admit(control, request, time.time())
        await control.remove([newcomer])
    file = await asyncio.to_thread(join, token, device(tmp_path))
    own = Credentials.load(file)
    assert own.password == request.password
    assert not pending.exists()


def _join_with_little_patience(token: Token, users: UsersFolder) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("splitplace.edge_node.joining.ANSWER_S", 1.0)
        join(token, users)


async def test_a_node_that_joins_anew_keeps_its_old_password_for_a_moment(
    secured: Secured, tmp_path: Path
) -> None:
    first = await invited(secured, "n8")
    async with enrolling(secured):
        old = Credentials.load(await asyncio.to_thread(join, first, device(tmp_path)))
        second = await asyncio.to_thread(token_for, secured, "n8", command=("rotate",))
        new = Credentials.load(await asyncio.to_thread(join, second, device(tmp_path)))
    assert (new.name, new.username) == ("n8", "n8~2")
    assert old.password != new.password
    async with controlling(secured.settings(ENROLLER)) as control:
        expires = {each.login: each.note.expires_s for each in await control.logins() if each.name == "n8"}
    assert expires["n8~2"] is None
    assert 0 < (expires["n8"] or 0) - time.time() <= 60


async def test_a_newcomer_can_do_nothing_but_ask(secured: Secured) -> None:
    token = await invited(secured, "n9")
    authority = secured.credentials(ENROLLER).authority
    newcomer = Visitor(secured.facts, "join:n9", token.password, authority).connect()
    for topic in (
        "node/n9/status",
        "join/kitchen/request",
        "task/mnist/n9",
        "tensor/n1/n9",
        "join/n9/answer",
    ):
        assert not newcomer.may_publish(f"{PREFIX}/{topic}"), topic
    for topic in ("#", f"{PREFIX}/#", f"{PREFIX}/join/+/request", f"{PREFIX}/join/+/answer", "$CONTROL/#"):
        assert not newcomer.may_subscribe(topic), topic
    newcomer.close()
    with pytest.raises(Refused):
        Visitor(secured.facts, "n9", token.password, authority).connect()


async def test_a_request_in_the_name_of_another_is_ignored(secured: Secured, tmp_path: Path) -> None:
    token = await invited(secured, "n10")
    victim = await invited(secured, "n11")
    authority = secured.credentials(ENROLLER).authority
    newcomer = Visitor(secured.facts, "join:n10", token.password, authority).connect()
    forged = JoinRequest(node="n11", password=draw_password()).model_dump_json().encode()
    async with enrolling(secured):
        assert await asyncio.to_thread(newcomer.may_publish, f"{PREFIX}/join/n10/request", forged)
        own = Credentials.load(await asyncio.to_thread(join, victim, device(tmp_path)))
    newcomer.close()
    assert own.name == "n11"
