"""The state of a cluster as the resource monitor tells it."""

from splitplace.bus.connection import Bus
from splitplace.messages.cluster import ClusterMembers, ClusterState, NodeState
from splitplace.messages.cluster_parts import ClusterTeller
from splitplace.messages.topics import CLUSTER_MEMBERS, CLUSTER_NODE


def parts_of(state: ClusterState) -> tuple[tuple[NodeState, ...], ClusterMembers]:
    """All that there is to tell of a state to somebody who knows nothing."""
    telling = ClusterTeller(idle_ms=0.0).tell(state, 0.0)
    assert telling is not None
    return telling.nodes, telling.members


async def publish_cluster(bus: Bus, state: ClusterState) -> None:
    """Tell a whole state, and wait for the broker."""
    nodes, members = parts_of(state)
    for node in nodes:
        await bus.publish(CLUSTER_NODE, node)
    await bus.publish(CLUSTER_MEMBERS, members)
