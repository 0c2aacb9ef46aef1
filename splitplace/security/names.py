"""Kinds of users of a secured broker, and the names that they may have. Pure.

A *name* is what a user is called in topics: one name belongs to one kind. A *login* is what the broker knows
a password for: the name, or the name with a number after a rotation (`camera~2`).
"""

import re

from pydantic import TypeAdapter, ValidationError

from splitplace.errors import ConfigurationError
from splitplace.messages.base import Name
from splitplace.messages.names import SensorName
from splitplace.messages.topics import (
    DASHBOARD,
    ENROLLER,
    HOME_ASSISTANT,
    NEWCOMER,
    NODE,
    OPERATOR,
    SENSOR,
    SERVICES,
)
from splitplace.messages.validation_errors import problem_of

SERVICE = "service"
KINDS = (SERVICE, NODE, SENSOR, DASHBOARD, HOME_ASSISTANT, OPERATOR, ENROLLER, NEWCOMER)
ADDABLE = (NODE, SENSOR, DASHBOARD, HOME_ASSISTANT, OPERATOR)
"""Kinds that people add users of."""

RESERVED = frozenset((*SERVICES, ENROLLER, OPERATOR, "anonymous", "broker", "authority"))
"""Names that `init` gives, that under which tasks without a sensor's name run, and what `rotate` knows."""

_GENERATION = re.compile(r"~(\d+)$")
_NEWCOMER = "join:"


class UserNameError(ConfigurationError):
    """A name that no user of this kind may have."""


def check_name(kind: str, name: str) -> str:
    """Return the name if a user of this kind may have it.

    A name is one level of topics in the access rules: a wildcard in it would give the rights of all others.

    Raises:
        UserNameError: it may not; the message says why.
    """
    if name in RESERVED:
        raise UserNameError(f"the name {name!r} is taken by SplitPlace itself: choose another")
    if _GENERATION.search(name) or name.startswith((_NEWCOMER, "$", "_")):
        raise UserNameError(
            f"the name {name!r} is not allowed: names end with no ~ and number, and begin with none of "
            f"{_NEWCOMER}, $ and _"
        )
    try:
        TypeAdapter(SensorName if kind == SENSOR else Name).validate_python(name)
    except ValidationError as error:
        raise UserNameError(
            f"{name!r} cannot be the name of a {kind}: {problem_of(error.errors()[0])}"
        ) from None
    return name


def name_of(login: str) -> str:
    """Return the name that a login belongs to."""
    return _GENERATION.sub("", login)


def next_login(name: str, taken: frozenset[str]) -> str:
    """Return a login of this name that is not taken."""
    generation = 2
    while f"{name}~{generation}" in taken:
        generation += 1
    return name if name not in taken else f"{name}~{generation}"


def newcomer_login(node: str) -> str:
    """Return the login with which a node joins, once."""
    return f"{_NEWCOMER}{node}"


def role_name(kind: str, name: str) -> str:
    """Return the name of the role with the rights of a user."""
    return f"{kind} {name}"


def role_parts(role: str) -> tuple[str, str] | None:
    """Return kind and name that a role was made for; None for a role of somebody else."""
    kind, _, name = role.partition(" ")
    return (kind, name) if kind in KINDS and name else None
