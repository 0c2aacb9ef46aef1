"""Which services and nodes a system has, read from its retained messages."""

from dataclasses import dataclass

from splitplace.commands.shared.client import Seen
from splitplace.messages.topics import CLUSTER_STATE, NODE_INFO, NODE_STATUS, SERVICE_STATUS, SERVICES

TOPICS = (SERVICE_STATUS, NODE_STATUS, NODE_INFO, CLUSTER_STATE)
"""What `report_on` reads."""


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """One of the five services."""

    name: str
    online: bool
    software: str | None
    """Its version; None if it was never online."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One edge node, as it describes itself and as the resource monitor sees it; None = unknown."""

    name: str
    online: bool
    score: float | None
    """GFLOP/s of the reference benchmark."""
    cpu_share: float | None
    """Share of one core that it is limited to."""
    memory_budget_bytes: int | None
    fragments_loaded: int | None
    queue_length: int | None
    queue_ms: float | None
    """Predicted time of all queued work."""
    software: str | None


@dataclass(frozen=True, slots=True)
class SystemReport:
    """All services and nodes of a system."""

    services: tuple[ServiceReport, ...]
    nodes: tuple[NodeReport, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of services that are not online."""
        return tuple(service.name for service in self.services if not service.online)


def report_on(seen: Seen) -> SystemReport:
    """Return what the retained messages of a system say."""
    services = {message.service: message for message in seen.messages(SERVICE_STATUS)}
    infos = {message.node: message for message in seen.messages(NODE_INFO)}
    states = {node.node: node for cluster in seen.messages(CLUSTER_STATE) for node in cluster.nodes}
    nodes = []
    for status in seen.messages(NODE_STATUS):
        info, state = infos.get(status.node), states.get(status.node)
        nodes.append(
            NodeReport(
                name=status.node,
                online=status.online and (state is None or state.online),
                score=info.score if info else None,
                cpu_share=info.cpu_share if info else None,
                memory_budget_bytes=info.memory_budget_bytes if info else None,
                fragments_loaded=len(state.loaded) if state else None,
                queue_length=state.queue_length if state else None,
                queue_ms=state.queue_ms if state else None,
                software=info.software if info else None,
            )
        )
    return SystemReport(
        services=tuple(
            ServiceReport(name, services[name].online, services[name].software)
            if name in services
            else ServiceReport(name, online=False, software=None)
            for name in SERVICES
        ),
        nodes=tuple(nodes),
    )
