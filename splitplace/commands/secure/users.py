"""`splitplace secure add`, `list`, `remove` and `rotate`."""

import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from splitplace.commands.secure import rotate_authority
from splitplace.commands.secure.authority import Authority
from splitplace.commands.secure.control import Control, controlling, enroller_settings
from splitplace.commands.secure.facts import Facts, secured_folder
from splitplace.commands.secure.init import credentials_of
from splitplace.commands.shared.options import parse_duration_ms
from splitplace.commands.shared.output import JsonOption, cell, print_json
from splitplace.commands.shared.places import StateDirOption, paths
from splitplace.errors import ConfigurationError
from splitplace.messages.topics import (
    DASHBOARD,
    ENROLLER,
    HOME_ASSISTANT,
    NEWCOMER,
    NODE,
    OPERATOR,
    SENSOR,
)
from splitplace.security.dynamic_security import User, describe_client
from splitplace.security.names import SERVICE, check_name, newcomer_login, next_login
from splitplace.security.passwords import draw_password
from splitplace.security.register import Login, Note, kind_of
from splitplace.security.rules import LEFT_BY_NODES
from splitplace.security.tokens import Token, draw_secret
from splitplace.storage.credentials import ONLY_OWNER, Credentials
from splitplace.storage.replace import replace_file
from splitplace.storage.secured import SecuredFolder

BROKER = "broker"
_PARTS = (SERVICE, ENROLLER)


class AddedKind(StrEnum):
    """Kinds of users that people add."""

    NODE = NODE
    SENSOR = SENSOR
    DASHBOARD = DASHBOARD
    HOME_ASSISTANT = HOME_ASSISTANT
    OPERATOR = OPERATOR


ValidOption = Annotated[
    str, typer.Option(help="How long a node's joining token is valid: 15min, 2h. A bare number is ms.")
]
QrOption = Annotated[bool, typer.Option("--qr", help="Show a node's joining token as QR code, too.")]


class _System:
    """The secured system of a state folder."""

    def __init__(self, folder: SecuredFolder) -> None:
        self.folder = folder
        self.facts = Facts.load(folder.facts)
        self.settings = enroller_settings(folder.users, ENROLLER)
        self.authority = Credentials.load(folder.users.file(ENROLLER)).authority

    async def add(self, control: Control, user: User, *, url: str, note: Note) -> None:
        """Write the credentials of a user, then make it: nobody has a password that is written nowhere."""
        file = self.folder.users.file(user.name)
        before = file.read_bytes() if file.exists() else None
        credentials_of(user, self.facts, url, self.authority).save(file)
        try:
            await control.add(user, note)
        except BaseException:
            if before is None:
                file.unlink(missing_ok=True)
            else:
                replace_file(file, before, mode=ONLY_OWNER)
            raise

    async def invite(self, control: Control, login: str, valid_s: float) -> Token:
        """Make a joining token for a node; an earlier one for the same node is void."""
        fingerprint = Authority.load(self.folder.authority).fingerprint
        expires_s = int(time.time() + valid_s)
        facts = self.facts
        token = Token(facts.url, facts.prefix, login, fingerprint, draw_secret(), expires_s)
        earlier = [each for each in await control.logins() if each.login == newcomer_login(token.name)]
        await control.remove(earlier)
        newcomer = User(NEWCOMER, token.name, newcomer_login(token.name), token.password)
        await control.add(newcomer, Note(expires_s, login))
        return token


def add_command(
    kind: Annotated[AddedKind, typer.Argument(help="What it is.")],
    names: Annotated[
        list[str], typer.Argument(help="What it is called in topics. One name belongs to one kind.")
    ],
    *,
    client_id: Annotated[
        str | None,
        typer.Option(
            help="The only MQTT client id with which a sensor or dashboard is let in: one connection at a "
            "time, and no other user's id.",
            show_default="any",
        ),
    ] = None,
    valid: ValidOption = "1h",
    qr: QrOption = False,
    state_dir: StateDirOption = None,
) -> None:
    """Let somebody in: a node by a joining token, others by a file of credentials.

    The broker must run. A token is good for one node and one use: `splitplace node --join TOKEN`. Several
    names of one kind make several users, each with a token or a file of its own.
    """
    for name in names:
        check_name(kind, name)
    if len(set(names)) < len(names):
        raise ConfigurationError("a name stands there twice; each belongs to one user")
    if client_id is not None and kind not in {
        AddedKind.SENSOR,
        AddedKind.DASHBOARD,
        AddedKind.HOME_ASSISTANT,
    }:
        raise ConfigurationError(f"--client-id: a {kind} has several connections, so any id must do")
    if client_id is not None and len(names) > 1:
        raise ConfigurationError("--client-id is for one user: add the others with a command of their own")
    system = _System(secured_folder(paths(state_dir)))
    asyncio.run(
        _add(system, kind.value, names, client_id or "", parse_duration_ms(valid, "--valid") / 1000, qr=qr)
    )


async def _add(
    system: _System, kind: str, names: Sequence[str], client_id: str, valid_s: float, *, qr: bool
) -> None:
    async with controlling(system.settings) as control:
        known = await control.logins()
        for name in names:
            _check_free(name, kind, known)
        for name in names:
            if kind == NODE:
                _show_token(await system.invite(control, name, valid_s), qr=qr)
                continue
            user = User(kind, name, name, draw_password(), client_id)
            await system.add(control, user, url=system.facts.url, note=Note())
            file = system.folder.users.file(name)
            print(f"{name} may come in as {kind}; its credentials, for nobody else: {file}")


def _check_free(name: str, kind: str, known: Sequence[Login]) -> None:
    """Raise ConfigurationError where somebody has the name already."""
    taken_by = kind_of(name, [each for each in known if each.kind != NEWCOMER])
    if taken_by is None and kind != NODE:
        taken_by = kind_of(name, known) and NODE  # invited, and may come any moment
    if taken_by is not None:
        raise ConfigurationError(
            f"{name!r} is a {taken_by} already: one name belongs to one kind, and to one user "
            f"(splitplace secure rotate {name} makes a new password, splitplace secure remove {name} "
            "frees the name)"
        )


def list_command(*, as_json: JsonOption = False, state_dir: StateDirOption = None) -> None:
    """Show who may come in."""
    system = _System(secured_folder(paths(state_dir)))
    known = asyncio.run(_logins(system))
    rows = [
        {
            "name": each.name,
            "kind": NODE if each.kind == NEWCOMER else each.kind,
            "login": each.login,
            "joined": each.kind != NEWCOMER,
            "expires": _iso(each.note.expires_s),
        }
        for each in sorted(known, key=lambda login: (login.kind, login.name, login.login))
    ]
    if as_json:
        print_json({"users": rows})
        return
    table = Table("name", "kind", "login", "until", title=f"Users of {system.facts.url}")
    for row in rows:
        until = str(row["expires"] or "")
        state = until if row["joined"] else f"token valid until {until}"
        table.add_row(*(cell(str(text)) for text in (row["name"], row["kind"], row["login"], state)))
    Console().print(table)


async def _logins(system: _System) -> tuple[Login, ...]:
    async with controlling(system.settings) as control:
        return await control.logins()


def remove_command(
    name: Annotated[str, typer.Argument(help="Name of a node, sensor, dashboard or operator.")],
    *,
    state_dir: StateDirOption = None,
) -> None:
    """Keep somebody out, at once: its connections end, and its passwords and tokens are void."""
    system = _System(secured_folder(paths(state_dir)))
    asyncio.run(_remove(system, name))
    system.folder.users.file(name).unlink(missing_ok=True)
    print(f"{name} is out: its connections have ended, and it cannot come back")


async def _remove(system: _System, name: str) -> None:
    async with controlling(system.settings) as control:
        gone = [each for each in await control.logins() if each.name == name]
        if not gone:
            raise ConfigurationError(f"nobody is called {name!r} (splitplace secure list shows all)")
        if any(each.kind in _PARTS for each in gone):
            raise ConfigurationError(f"{name} is a part of the system: splitplace secure rotate {name}")
        await control.remove(gone)
        if any(each.kind == NODE for each in gone):
            await control.clear(tuple(topic.at(node=name) for topic in LEFT_BY_NODES))


def rotate_command(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of a user; `broker` for the broker's certificate and key; `authority` for the "
            "authority."
        ),
    ],
    *,
    overlap: Annotated[str, typer.Option(help="How long the old password is good: 0s, 10min, 24h.")] = "24h",
    valid: ValidOption = "1h",
    qr: QrOption = False,
    finish_it: Annotated[
        bool, typer.Option("--finish", help="For `authority`: trust only the new one from now on.")
    ] = False,
    state_dir: StateDirOption = None,
) -> None:
    """Replace a password, the broker's certificate, or the authority. Old and new are good for a while.

    A node gets a new joining token; its old password is good until it has joined, and the overlap after that.
    """
    folder = secured_folder(paths(state_dir))
    if name == rotate_authority.AUTHORITY:
        (rotate_authority.finish if finish_it else rotate_authority.begin)(folder)
        return
    if finish_it:
        raise ConfigurationError("--finish is for: splitplace secure rotate authority")
    if name == BROKER:
        facts = Facts.load(folder.facts)
        Authority.load(folder.authority).sign_broker(facts.hosts, folder.broker)
        print("the broker has a new certificate; `splitplace broker` restarts with it and keeps messages")
        print("(any other Mosquitto: copy broker.pem and broker.key, then restart it)")
        return
    system = _System(folder)
    overlap_s = 0.0 if overlap in {"0", "0s"} else parse_duration_ms(overlap, "--overlap") / 1000
    asyncio.run(_rotate(system, name, overlap_s, parse_duration_ms(valid, "--valid") / 1000, qr=qr))


async def _rotate(system: _System, name: str, overlap_s: float, valid_s: float, *, qr: bool) -> None:
    async with controlling(system.settings) as control:
        known = await control.logins()
        old = [each for each in known if each.name == name and each.kind != NEWCOMER]
        if not old:
            raise ConfigurationError(f"nobody is called {name!r} (splitplace secure list shows all)")
        login = next_login(name, frozenset(each.login for each in known))
        if old[0].kind == NODE:
            _show_token(await system.invite(control, login, valid_s), qr=qr)
            return
        own = Credentials.load(system.folder.users.existing(name))
        user = User(old[0].kind, name, login, draw_password(), own.client_id)
        await system.add(control, user, url=own.broker, note=Note())
        until_s = time.time() + overlap_s
    async with controlling(enroller_settings(system.folder.users, ENROLLER)) as control:
        await retire(control, old, until_s)
    print(
        f"{name} has a new password in {system.folder.users.file(name)}; the old one is good until "
        f"{_iso(until_s)}"
    )
    if old[0].kind in _PARTS:
        print("splitplace up restarts it with the new one; parts that you started yourself, restart yourself")


async def retire(control: Control, old: list[Login], until_s: float) -> None:
    """Let logins be good until then, or remove them now."""
    if until_s <= time.time():
        await control.remove(old)
        return
    for each in old:
        expires_s = min(until_s, each.note.expires_s or until_s)
        await control.send(describe_client(each.login, str(Note(expires_s))))


def _show_token(token: Token, *, qr: bool) -> None:
    print(
        f"{token.name} may join until {_iso(token.expires_s)}, once (splitplace up must run). On the device:",
        file=sys.stderr,
    )
    print(f"splitplace node --join {token}")
    if qr:
        import segno  # noqa: PLC0415 - only for this

        segno.make(str(token), error="l").terminal(compact=True)


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
