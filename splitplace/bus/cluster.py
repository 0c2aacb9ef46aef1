"""Reading the cluster's state, which comes in parts."""

from collections.abc import Callable

from splitplace.bus.incoming import Received
from splitplace.bus.subscriber import Subscriber
from splitplace.messages.cluster import ClusterMembers, ClusterState, NodeState
from splitplace.messages.cluster_parts import ClusterAssembly
from splitplace.messages.topics import CLUSTER_MEMBERS, CLUSTER_NODE


def subscribe_cluster(bus: Subscriber, handler: Callable[[ClusterState], None]) -> None:
    """Call a handler with every state of the cluster, as `Bus.subscribe_at_once` does."""
    assembly = ClusterAssembly()

    def take(received: Received[NodeState] | Received[ClusterMembers]) -> None:
        state = assembly.take(received.message)
        if state is not None:
            handler(state)

    bus.subscribe_at_once(CLUSTER_NODE, take)
    bus.subscribe_at_once(CLUSTER_MEMBERS, take)
