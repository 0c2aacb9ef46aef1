"""Which services and nodes a system has, read from its retained messages and its signs of life.

After a power cut the broker still says that all is online. So whoever claims to be online must also speak.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import aiomqtt

from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import Seen, cluster_seen, retained, wait_for
from splitplace.messages.base import PROTOCOL_VERSION, one_line
from splitplace.messages.topics import (
    CLUSTER_MEMBERS,
    CLUSTER_NODE,
    METRICS_SERVICE,
    NODE_INFO,
    NODE_STATUS,
    NODE_VITALS,
    SERVICE_STATUS,
    SERVICES,
    Topic,
)

TOPICS: tuple[Topic[Any], ...] = (
    SERVICE_STATUS,
    METRICS_SERVICE,
    NODE_STATUS,
    NODE_VITALS,
    NODE_INFO,
    CLUSTER_NODE,
    CLUSTER_MEMBERS,
)
"""What `report_on` reads."""


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """One of the five services."""

    name: str
    online: bool
    software: str | None
    """Its version; None if it was never online."""
    trouble: str = ""
    """What it says it cannot do, and why; empty if all is well."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One edge node, as it describes itself and as the resource monitor sees it; None = unknown."""

    name: str
    online: bool
    score: float | None
    """GFLOP/s of the reference benchmark, on all its cores."""
    threads: int | None
    """Cores that it computes on."""
    cpu_share: float | None
    """Share of one core that it is limited to."""
    memory_budget_bytes: int | None
    """For the private memory of fragments."""
    mapped_bytes: int | None
    """Weights that its loaded fragments map beside that."""
    fragments_loaded: int | None
    queue_length: int | None
    queue_ms: float | None
    """Predicted time of all queued work."""
    software: str | None
    stalled: bool = False
    """Whether it beats but does not compute."""
    trouble: str = ""
    """What it cannot do, and why; empty if all is well."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A service or node that says something of itself that this version does not understand."""

    name: str
    """`node kitchen`, or the name of the service."""
    software: str | None
    """Its version, if it says so where we can read it."""
    reason: str

    def __str__(self) -> str:
        software = self.software or "of an unknown version"
        return f"{self.name} ({software}) is not understood: {self.reason}"


@dataclass(frozen=True, slots=True)
class SystemReport:
    """All services and nodes of a system."""

    services: tuple[ServiceReport, ...]
    nodes: tuple[NodeReport, ...]
    strangers: tuple[Stranger, ...] = ()
    unreadable: tuple[str, ...] = ()
    """Topics that this user of the broker may not read: what they tell is unknown."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of services that are not online."""
        if SERVICE_STATUS.filter in self.unreadable:
            return ()
        return tuple(service.name for service in self.services if not service.online)


async def look(client: aiomqtt.Client, settings: Settings, *more: Topic[Any]) -> Seen:
    """Return what a system says of itself, once everything that claims to be online was heard, or was not.

    Args:
        client: connected to the broker.
        settings: the prefix.
        more: retained topics to look at besides.
    """
    seen = await retained(client, settings, (*TOPICS, *more))
    await wait_for(client, seen, _all_spoke)
    return seen


def _all_spoke(seen: Seen) -> bool:
    claims = [status.service for status in seen.messages(SERVICE_STATUS) if status.online]
    nodes = [status.node for status in seen.messages(NODE_STATUS) if status.online]
    return all(_service_lives(seen, name) for name in claims) and all(
        _node_lives(seen, name) for name in nodes
    )


def _service_lives(seen: Seen, service: str) -> bool:
    """Whether a service spoke while we listened."""
    return seen.is_fresh(METRICS_SERVICE.at(service=service))


def _node_lives(seen: Seen, node: str) -> bool:
    """Whether a node, or the resource monitor of it, spoke while we listened."""
    if seen.is_fresh(NODE_VITALS.at(node=node)):
        return True
    members = next(iter(seen.messages(CLUSTER_MEMBERS)), None)
    is_member = members is not None and node in members.nodes and seen.is_fresh(CLUSTER_MEMBERS.at())
    return is_member and any(state.online for state in seen.messages(CLUSTER_NODE) if state.node == node)


def report_on(seen: Seen) -> SystemReport:
    """Return what the messages of a system say. Whoever is silent is offline, whatever is retained."""
    services = {message.service: message for message in seen.messages(SERVICE_STATUS)}
    infos = {message.node: message for message in seen.messages(NODE_INFO)}
    cluster = cluster_seen(seen)
    states = {node.node: node for node in cluster.nodes} if cluster else {}
    troubles = {message.service: message.trouble for message in seen.messages(METRICS_SERVICE)}
    nodes = []
    for status in seen.messages(NODE_STATUS):
        info, state = infos.get(status.node), states.get(status.node)
        nodes.append(
            NodeReport(
                name=status.node,
                online=status.online and (state is None or state.online) and _node_lives(seen, status.node),
                score=state.score if state else info.score if info else None,
                threads=state.threads if state else None,
                cpu_share=info.cpu_share if info else None,
                memory_budget_bytes=info.memory_budget_bytes if info else None,
                mapped_bytes=state.mapped_bytes if state else None,
                fragments_loaded=len(state.loaded) if state else None,
                queue_length=state.queue_length if state else None,
                queue_ms=state.queue_ms if state else None,
                software=info.software if info else None,
                stalled=bool(state and state.online and state.stalled),
                trouble=((state.stalled or state.trouble) if state else ""),
            )
        )
    return SystemReport(
        services=tuple(
            ServiceReport(
                name,
                services[name].online and _service_lives(seen, name),
                services[name].software,
                troubles.get(name, ""),
            )
            if name in services
            else ServiceReport(name, online=False, software=None)
            for name in SERVICES
        ),
        nodes=tuple(nodes),
        strangers=_strangers(seen),
        unreadable=tuple(seen.unreadable),
    )


def _strangers(seen: Seen) -> tuple[Stranger, ...]:
    """Return who says something that is not valid, once each; the first to say a version counts."""
    found: dict[str, Stranger] = {}
    for topic in (SERVICE_STATUS, NODE_INFO, NODE_STATUS, NODE_VITALS):
        for parameters, payload, why in seen.not_understood(topic):
            node = parameters.get("node")
            name = parameters.get("service", "") if node is None else f"node {node}"
            protocol, software = _versions_in(payload)
            reason = f"it speaks version {protocol} of the protocol, this is {PROTOCOL_VERSION}"
            known = found.get(name)
            found[name] = Stranger(
                name=name,
                software=(known.software if known else None) or software,
                reason=known.reason if known else why if protocol in {None, PROTOCOL_VERSION} else reason,
            )
    versions = {f"node {info.node}": info.software for info in seen.messages(NODE_INFO)}
    return tuple(replace(each, software=each.software or versions.get(each.name)) for each in found.values())


def _versions_in(payload: bytes) -> tuple[int | None, str | None]:
    """Return protocol and software version of a message of any version, where they stand as in ours."""
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(fields, dict):
        return None, None
    protocol, software = fields.get("version"), fields.get("software")
    return (
        protocol if isinstance(protocol, int) else None,
        one_line(software[:200]) if isinstance(software, str) else None,
    )
