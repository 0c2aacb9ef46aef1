"""The processes of the services: one for all, or one for each."""

from collections.abc import Sequence
from typing import Annotated

import typer

from splitplace.commands.shared.policy_option import policy_flags
from splitplace.messages.topics import SERVICES
from splitplace.policies.pairs import PolicyPair

TOGETHER = "services"
"""The process that all services share, and the command that runs it."""

ApartOption = Annotated[
    bool, typer.Option("--processes", help="Run each service as a process of its own: more memory.")
]


def service_processes(policy: PolicyPair | None, *, apart: bool) -> dict[str, Sequence[str]]:
    """Return the processes of the services, which are commands of `splitplace`, with the flags of each."""
    if apart:
        own = policy_flags(policy)
        return {name: own.get(name, ()) for name in SERVICES}
    return {TOGETHER: () if policy is None else ("--policy", f"{policy.split}+{policy.placement}")}
