"""The option `--policy` of the commands that start services."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from splitplace.errors import ConfigurationError
from splitplace.messages.topics import PLACER, SPLITTER
from splitplace.policies.pairs import PolicyPair, parse_policy

PolicyOption = Annotated[
    str | None,
    typer.Option(
        metavar="SPLIT+PLACEMENT",
        help="How to split and where to place, such as mab+daso.",
        show_default="the services' settings",
    ),
]


def parse_pair(text: str | None) -> PolicyPair | None:
    """Return the pair that the option names; None without one. Raises ConfigurationError."""
    try:
        return parse_policy(text) if text is not None else None
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def policy_flags(policy: PolicyPair | None) -> Mapping[str, Sequence[str]]:
    """Return the flags that set these policies, by service; none for None."""
    if policy is None:
        return {}
    return {SPLITTER: ("--policy", policy.split), PLACER: ("--placement", policy.placement)}
