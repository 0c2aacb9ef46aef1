"""What a running system says of its nodes and networks."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import cluster_seen, connected, may_not_read, retained
from splitplace.commands.shared.places import stored_applications
from splitplace.errors import ConfigurationError, SplitPlaceError
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState
from splitplace.messages.topics import APPLICATION, CLUSTER_MEMBERS, CLUSTER_NODE


class SourceError(SplitPlaceError):
    """A running system does not tell what is asked."""


def ask_system(
    settings: Settings, purpose: str, store: Path | None = None
) -> tuple[ClusterState, Sequence[Application]]:
    """Ask a running system once for its nodes and its networks.

    Args:
        settings: where it is.
        purpose: the command, for the name of the connection.
        store: a folder whose networks take the place of the system's.

    Raises:
        UnreachableError: the broker cannot be reached.
        SourceError: this user may not read it, or nobody tells of the nodes.
        ConfigurationError: the folder cannot be read.
    """
    state, applications = asyncio.run(_ask(settings, purpose))
    return state, applications if store is None else stored_applications(store)


def found_network(name: str, applications: Sequence[Application]) -> Application:
    """Return the application of a name. Raises ConfigurationError."""
    for each in applications:
        if each.name == name:
            return each
    known = ", ".join(sorted(each.name for each in applications)) or "none"
    raise ConfigurationError(
        f"there is no application {name!r}; there are: {known} "
        "(splitplace models add brings a network of your own)"
    )


async def _ask(settings: Settings, purpose: str) -> tuple[ClusterState, Sequence[Application]]:
    async with connected(settings, purpose) as client:
        seen = await retained(client, settings, (CLUSTER_NODE, CLUSTER_MEMBERS, APPLICATION))
    if seen.unreadable:
        raise SourceError(f"{may_not_read(settings, seen.unreadable)}: {purpose} as an operator")
    state = cluster_seen(seen)
    if state is None:
        raise SourceError(
            "the system says nothing of its nodes: is its resource monitor running (splitplace status)?"
        )
    return state, tuple(seen.messages(APPLICATION))
