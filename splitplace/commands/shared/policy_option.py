"""The option `--policy` of the commands that start services."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from splitplace.commands.shared.exit_codes import ExitCode
from splitplace.commands.shared.options import fail
from splitplace.messages.topics import PLACER, SPLITTER
from splitplace.policies.pairs import PolicyPair, parse_policy

PolicyOption = Annotated[
    str | None,
    typer.Option(
        metavar="SPLIT+PLACEMENT",
        help="How to split and where to place, such as mab+daso. [default: as the services' settings say]",
    ),
]


def parse_pair(text: str | None) -> PolicyPair | None:
    """The pair that was asked for; None where none was. Exits where there is no such pair."""
    try:
        return parse_policy(text) if text is not None else None
    except ValueError as error:
        fail(str(error), ExitCode.USAGE)


def policy_flags(policy: PolicyPair | None) -> Mapping[str, Sequence[str]]:
    """What tells services to decide by these policies, by the service; nothing for None."""
    if policy is None:
        return {}
    return {SPLITTER: ("--policy", policy.split), PLACER: ("--placement", policy.placement)}
