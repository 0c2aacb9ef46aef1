"""Keeps a second node of the same name away: the two would throw each other out at the broker."""

import asyncio

from splitplace.bus.connection import Bus, Received
from splitplace.bus.service import new_boot_id
from splitplace.edge_node.settings import NodeSettings
from splitplace.errors import ConfigurationError
from splitplace.messages.cluster import NodeStatus, NodeVitals
from splitplace.messages.topics import NODE_STATUS, NODE_VITALS

_CONNECTS_WITHIN_S = 3.0
_ARRIVES_WITHIN_S = 0.5
"""Time for the retained status."""
_SPEAKS_WITHIN_S = 3.0
"""Time for a heartbeat of a living node. A status without one is what a dead node left behind."""


class NamesakeError(ConfigurationError):
    """Another node has this name."""


async def check_name(settings: NodeSettings) -> None:
    """Raise NamesakeError if a living node has our name. Without a broker, return soon."""
    claimed, spoke = asyncio.Event(), asyncio.Event()

    async def on_status(received: Received[NodeStatus]) -> None:
        if received.message.online:
            claimed.set()

    async def on_vitals(_: Received[NodeVitals]) -> None:
        spoke.set()

    bus = Bus(settings, f"splitplace-node-{settings.node}:{new_boot_id()}")
    bus.subscribe(NODE_STATUS, on_status, node=settings.node)
    bus.subscribe(NODE_VITALS, on_vitals, node=settings.node)
    async with bus:
        try:
            await asyncio.wait_for(bus.connected(), _CONNECTS_WITHIN_S)
            await asyncio.wait_for(claimed.wait(), _ARRIVES_WITHIN_S)
            await asyncio.wait_for(spoke.wait(), _SPEAKS_WITHIN_S)
        except TimeoutError:
            return
    raise NamesakeError(
        f"another node on {settings.broker} is called {settings.node}: choose another name with --node"
    )
