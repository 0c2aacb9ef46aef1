"""The JSON that Mosquitto's dynamic-security plugin reads: its first file, and its commands. Pure.

As documented on mosquitto.org and tried with 2.0.11. The plugin keeps all users in its file and writes it
anew at each change, so the broker needs no restart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from splitplace.security.names import role_name
from splitplace.security.passwords import stored
from splitplace.security.rules import Access, rules

COMMAND_TOPIC = "$CONTROL/dynamic-security/v1"
RESPONSE_TOPIC = "$CONTROL/dynamic-security/v1/response"

Json = dict[str, Any]

_TYPES: Mapping[Access, tuple[str, ...]] = {
    "publish": ("publishClientSend",),
    "read": ("publishClientReceive", "subscribePattern"),
    "subscribe": ("subscribePattern",),
}
"""The plugin's kinds of rules."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom the broker shall know."""

    kind: str
    name: str
    login: str
    password: str
    client_id: str = ""
    """The only MQTT client id with which it is let in; empty = any."""


def first_file(users: Iterable[User], prefix: str) -> Json:
    """Return the plugin's file with these users; it denies everything else."""
    users = tuple(users)
    denied = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
    return {
        "defaultACLAccess": {access: access == "unsubscribe" for access in denied},
        "clients": [
            {"username": user.login, "roles": _roles(user.kind, user.name), **stored(user.password)}
            for user in users
        ],
        "groups": [],
        "roles": [role(user.kind, user.name, prefix) for user in users],
    }


def role(kind: str, name: str, prefix: str) -> Json:
    """Return the role of a user, with its rules."""
    acls = []
    for rule in rules(kind, name, prefix):
        acls += [
            {"acltype": each, "topic": rule.topic, "priority": 0, "allow": True}
            for each in _TYPES[rule.access]
        ]
    return {"rolename": role_name(kind, name), "acls": acls}


def create_role(kind: str, name: str, prefix: str) -> Json:
    """Return the command that makes a user's role."""
    return {"command": "createRole", **role(kind, name, prefix)}


def replace_role(kind: str, name: str, prefix: str) -> Json:
    """Return the command that gives a user's role the rules of this version."""
    return {"command": "modifyRole", **role(kind, name, prefix)}


def create_client(user: User, note: str = "") -> Json:
    """Return the command that makes a login. `note` is kept with it, for people and for us."""
    return {
        "command": "createClient",
        "username": user.login,
        "password": user.password,
        "textdescription": note,
        "roles": _roles(user.kind, user.name),
        **({"clientid": user.client_id} if user.client_id else {}),
    }


def describe_client(login: str, note: str) -> Json:
    """Return the command that replaces the note of a login."""
    return {"command": "modifyClient", "username": login, "textdescription": note}


def delete_client(login: str) -> Json:
    """Return the command that removes a login, and ends its connections at once."""
    return {"command": "deleteClient", "username": login}


def delete_role(kind: str, name: str) -> Json:
    """Return the command that removes a user's role."""
    return {"command": "deleteRole", "rolename": role_name(kind, name)}


def list_clients() -> Json:
    """Return the command that lists all logins with their roles and notes."""
    return {"command": "listClients", "verbose": True}


def list_roles() -> Json:
    """Return the command that lists all roles with their rules."""
    return {"command": "listRoles", "verbose": True}


def _roles(kind: str, name: str) -> list[Mapping[str, Any]]:
    return [{"rolename": role_name(kind, name), "priority": 0}]
