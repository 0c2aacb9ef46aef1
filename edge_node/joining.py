"""Become a node of a secured system: a joining token in, credentials of our own out."""

import asyncio
import hashlib
import logging
import secrets
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiomqtt

from splitplace.bus.client import BrokerClient
from splitplace.bus.connection import parse
from splitplace.bus.hints import hint
from splitplace.bus.identity import NO_SESSION, ClientIdentity
from splitplace.bus.keepalive import Keepalive
from splitplace.bus.publication import Publication
from splitplace.bus.settings import DEFAULT_TLS_PORT, Settings
from splitplace.errors import UnreachableError
from splitplace.messages.joining import JoinRequest
from splitplace.messages.topics import JOIN_ANSWER, JOIN_REQUEST, NODE
from splitplace.security.names import newcomer_login
from splitplace.security.passwords import draw_password
from splitplace.security.tokens import Token, TokenError
from splitplace.storage.client_secret import draw_secret
from splitplace.storage.credentials import Credentials
from splitplace.storage.secured import UsersFolder

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
ANSWER_S = 30.0
_AGAIN_S = 3.0
_KEEPALIVE_S = 60
_RECEIVE_MAXIMUM = 16
_REFUSED = ("not authorized", "bad user name")


def join(token: Token, users: UsersFolder) -> Path:
    """Return the credentials that a token stands for; get them, if this device has not joined with it yet.

    Blocks. What the broker knows is on this disk first: a crash or a lost answer locks nobody out.

    Raises:
        TokenError: the token has expired or was used, or the broker is not the one that it names.
        UnreachableError: there is no broker, or no enroller answers.
    """
    file = users.file(token.name)
    if file.is_file() and Credentials.load(file).token == token.mark:
        return file
    pending = users.path / f".{file.name}.pending"
    if pending.is_file() and Credentials.load(pending).token == token.mark:
        own = Credentials.load(pending)
    else:
        own = Credentials(
            kind=NODE,
            name=token.name,
            broker=token.broker,
            prefix=token.prefix,
            username=token.login,
            password=draw_password(),
            authority=trusted_authority(token),
            token=token.mark,
        )
        users.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        own.save(pending)
    asyncio.run(_ask(token, own, pending))
    pending.replace(file)
    log.info("joined %s as %s", token.broker, token.name)
    return file


def trusted_authority(token: Token) -> str:
    """Return the certificate of the authority with the token's fingerprint, in PEM, as the broker shows it.

    Nothing is sent to the broker but the beginning of TLS: it is not trusted yet.

    Raises:
        TokenError: the broker has another authority.
        UnreachableError: there is no broker, or it does not speak TLS.
    """
    url = urlsplit(token.broker)
    address = (url.hostname or "", url.port or DEFAULT_TLS_PORT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the fingerprint decides, and then each connection is verified
    try:
        with (
            socket.create_connection(address, PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=address[0]) as connection,
        ):
            chain = _chain(connection)
    except (OSError, ValueError) as error:
        raise UnreachableError(f"broker {token.broker}: {error} ({hint(error, token.broker)})") from error
    for certificate in chain:
        if secrets.compare_digest(hashlib.sha256(certificate).digest(), token.authority):
            return ssl.DER_cert_to_PEM_cert(certificate)
    raise TokenError(
        f"the broker at {token.broker} is not the one that made this token: its authority has another "
        "fingerprint (is somebody in between, or was the system secured anew? make another token)"
    )


def _chain(connection: ssl.SSLSocket) -> list[bytes]:
    """Return the certificates that the other side has shown, in DER."""
    public = getattr(connection, "get_unverified_chain", None)
    if public is not None:  # Python 3.13
        return [bytes(each) for each in public()]
    inner: Any = connection._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 - there before it was public
    return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in inner.get_unverified_chain()]


async def _ask(token: Token, own: Credentials, file: Path) -> None:
    """Have the enroller make our user; return once the broker knows it."""
    newcomer = _settings(token, file, username=newcomer_login(token.name), password=token.password)
    try:
        async with asyncio.timeout(ANSWER_S), _identity(newcomer).connected(PATIENCE_S) as client:
            await _request(client, newcomer, own)
    except TimeoutError:
        raise UnreachableError(
            f"nobody at {token.broker} answers newcomers: does splitplace up run there?"
        ) from None
    except aiomqtt.MqttError as error:
        # An earlier answer may have been lost, or this one: the enroller removes the one-time user at once.
        if await _is_let_in(_settings(token, file)):
            return
        if await _is_let_in(newcomer) is False:
            raise TokenError(
                f"the token for {token.name} has expired, was used or was withdrawn: make another with "
                f"splitplace secure add node {token.name}"
            ) from error
        raise UnreachableError(f"broker {token.broker}: {error} ({hint(error, token.broker)})") from error


def _settings(token: Token, file: Path, **given: str) -> Settings:
    """Return settings for the token's broker, whatever this device's own settings say."""
    return Settings.model_validate(
        {"credentials": file, "broker": token.broker, "prefix": token.prefix, **given}
    )


async def _request(client: BrokerClient, settings: Settings, own: Credentials) -> None:
    answers = f"{settings.prefix}/{JOIN_ANSWER.at(node=own.name)}"
    await client.subscribe(answers, qos=1)
    request = JoinRequest(node=own.name, password=own.password)
    topic = f"{settings.prefix}/{JOIN_REQUEST.name_of(request)}"
    payload = request.model_dump_json().encode()
    asking = asyncio.create_task(_ask_again_and_again(client, Publication(topic, payload)), name="asking")
    try:
        async for message in client.messages:
            name = message.topic.value.removeprefix(f"{settings.prefix}/")
            answer = parse(JOIN_ANSWER, name, bytes(message.payload)).message
            if answer.error:
                raise TokenError(f"{own.name} may not join: {answer.error}")
            return
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)  # a lost connection ends the messages too


async def _ask_again_and_again(client: BrokerClient, request: Publication) -> None:
    """Publish a request until cancelled: an enroller that is just starting does not hear the first."""
    while True:
        await client.publish_once(request)
        await asyncio.sleep(_AGAIN_S)


async def _is_let_in(settings: Settings) -> bool | None:
    """Whether the broker lets a user in; None where that cannot be known now."""
    try:
        async with _identity(settings).connected(PATIENCE_S):
            return True
    except (aiomqtt.MqttError, OSError) as error:
        return False if any(words in str(error).lower() for words in _REFUSED) else None


def _identity(settings: Settings) -> ClientIdentity:
    return ClientIdentity(
        settings,
        "splitplace-join",
        draw_secret(),
        None,
        NO_SESSION,
        _RECEIVE_MAXIMUM,
        Keepalive(_KEEPALIVE_S),
        PATIENCE_S,
        manual_ack=False,
    )
