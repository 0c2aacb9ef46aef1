"""`splitplace secure init`."""

import json
import shutil
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from splitplace.bus.own_addresses import own_addresses
from splitplace.bus.settings import DEFAULT_PREFIX, DEFAULT_TLS_PORT
from splitplace.commands.processes.broker import NO_USERS, Broker, BrokerError, mosquitto_path
from splitplace.commands.processes.secured_mosquitto import USERS_FILE, plugin_path
from splitplace.commands.secure.authority import Authority
from splitplace.commands.secure.facts import Facts, secured_folder
from splitplace.commands.shared.places import StateDirOption, paths
from splitplace.errors import ConfigurationError
from splitplace.messages.topics import ENROLLER, NODE, OPERATOR, SERVICES
from splitplace.security.dynamic_security import User, first_file
from splitplace.security.names import SERVICE, check_name
from splitplace.security.passwords import draw_password
from splitplace.storage.credentials import ONLY_OWNER, Credentials
from splitplace.storage.replace import replace_file
from splitplace.storage.secured import SecuredFolder

_ONLY_OWNER_FOLDER = 0o700
_LOCAL = ("localhost", "127.0.0.1", "::1")


def init_command(
    *,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or address of the broker, as other devices know it; repeat it for several. The "
            "first is what they are told.",
            show_default="host name and addresses of this machine",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of MQTT over TLS.")] = DEFAULT_TLS_PORT,
    prefix: Annotated[str, typer.Option(help="First levels of all topics.")] = DEFAULT_PREFIX,
    node: Annotated[
        list[str] | None,
        typer.Option(
            help="A node whose credentials lie beside those of the services, as for containers; repeat it "
            "for several. Others join with tokens.",
            show_default="none",
        ),
    ] = None,
    plugin: Annotated[
        Path | None,
        typer.Option(help="Mosquitto's dynamic-security plugin.", show_default="where it is installed"),
    ] = None,
    state_dir: StateDirOption = None,
) -> None:
    """Give the system certificates, users and access rules.

    Afterwards `broker`, `up` and all other commands that use this state folder are secured. Nothing is
    overwritten: what exists is left alone, and the command ends with an error.
    """
    folder = secured_folder(paths(state_dir))
    if mosquitto_path() is None and plugin is None:
        raise BrokerError(NO_USERS)
    hosts = tuple(dict.fromkeys((*(host or _own_names()), *_LOCAL)))
    for each in hosts:
        _check_host(each)
    facts = Facts(hosts, port, prefix.strip("/"), str((plugin or plugin_path()).absolute()))
    for each in node or ():
        check_name(NODE, each)
    initialise(folder, facts, nodes=tuple(dict.fromkeys(node or ())))
    print(f"certificates, users and access rules are in {folder.path}, readable by you only")
    print(f"other devices will be told {facts.url}; the certificate is for {', '.join(hosts)}")
    print("now start the broker and the services:  splitplace broker   splitplace up")
    print("and let others in:  splitplace secure add node NAME   splitplace secure add sensor NAME")


def initialise(folder: SecuredFolder, facts: Facts, *, nodes: Sequence[str] = ()) -> None:
    """Make all files, or none. Raises ConfigurationError where there are some, and OSError."""
    if folder.path.exists() and any(folder.path.iterdir()):
        if not folder.facts.exists():
            raise ConfigurationError(
                f"{folder.path} is not empty, but not complete: an earlier splitplace secure init was cut "
                "off, or the folder is not ours; move it away, and try again"
            )
        raise ConfigurationError(
            f"{folder.path} is not empty: this system is secured already (list its users with splitplace "
            "secure list; to begin anew, move the folder away, and let every device join again)"
        )
    try:
        _make(folder, facts, nodes)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _make(folder: SecuredFolder, facts: Facts, nodes: Sequence[str]) -> None:
    """Make all files; that with the facts comes last."""
    for each in (folder.path, folder.broker, folder.authority, folder.users.path):
        each.mkdir(mode=_ONLY_OWNER_FOLDER, parents=True, exist_ok=True)
    folder.path.chmod(_ONLY_OWNER_FOLDER)
    authority = Authority.new()
    authority.save(folder.authority)
    authority.sign_broker(facts.hosts, folder.broker)
    kinds = {**dict.fromkeys(SERVICES, SERVICE), OPERATOR: OPERATOR, ENROLLER: ENROLLER}
    kinds |= dict.fromkeys(nodes, NODE)
    users = [User(kind, name, name, draw_password()) for name, kind in kinds.items()]
    content = json.dumps(first_file(users, facts.prefix), indent=1).encode()
    replace_file(folder.broker / USERS_FILE, content, mode=ONLY_OWNER)
    broker = Broker(
        "mosquitto",
        folder.broker,
        port=facts.port,
        host="0.0.0.0",  # noqa: S104 - that is what users and TLS are for
        secured=folder.broker,
        plugin=Path(facts.plugin),
    )
    broker.write_configuration()
    for user in users:
        credentials_of(user, facts, facts.local_url, authority.pem).save(folder.users.file(user.name))
    facts.save(folder.facts)


def credentials_of(user: User, facts: Facts, url: str, authority: str) -> Credentials:
    """Return the credentials of a user that reaches the broker at this URL."""
    return Credentials(
        kind=user.kind,
        name=user.name,
        broker=url,
        prefix=facts.prefix,
        username=user.login,
        password=user.password,
        authority=authority,
        client_id=user.client_id,
    )


def _own_names() -> Sequence[str]:
    """Names and addresses of this machine; those that other devices most likely know come first."""
    name = socket.gethostname().partition(".")[0]
    names = [each for each in (f"{name}.local", name) if _is_host_name(each)]
    return (*own_addresses(), *names)


def _check_host(host: str) -> None:
    try:
        ip_address(host)
    except ValueError:
        if not _is_host_name(host):
            raise ConfigurationError(f"--host {host!r} is neither a host name nor an address") from None


def _is_host_name(host: str) -> bool:
    return host.isascii() and len(host) <= 253 and all(map(_is_label, host.split(".")))  # noqa: PLR2004 - RFC 1035


def _is_label(label: str) -> bool:
    return 0 < len(label) <= 63 and label.replace("-", "").replace("_", "").isalnum()  # noqa: PLR2004
