"""Where a plan takes nodes, networks and calibration from: flags, files, this machine, a running system."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import cluster_seen, connected, may_not_read, retained
from splitplace.commands.shared.places import model_store, paths
from splitplace.errors import ConfigurationError, MissingExtraError, SplitPlaceError
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState
from splitplace.messages.topics import APPLICATION, CLUSTER_MEMBERS, CLUSTER_NODE
from splitplace.planning.kinds import Cluster, NodeKind, from_states, known_kinds, parse_nodes
from splitplace.simulator.calibration import Calibration, read_calibration, shipped_calibration
from splitplace.storage.model_store import StoreError

HERE = "here"
"""The kind of node that this machine would be."""


class SourceError(SplitPlaceError):
    """A running system does not tell what a plan needs."""


def nodes_and_networks(
    nodes: str | None, settings: Settings | None, store: Path | None
) -> tuple[Cluster, Sequence[Application]]:
    """Return the nodes and the networks of a plan.

    Args:
        nodes: what `--nodes` says; None asks the system.
        settings: where the running system is; None where nobody is asked.
        store: the folder of `--store`. Its networks go before those of the system.

    Raises:
        SplitPlaceError: something cannot be read or understood.
    """
    told: tuple[ClusterState | None, Sequence[Application]] = (None, ())
    if settings is not None:
        told = asyncio.run(_ask(settings))
    state, applications = told
    if store is not None or settings is None:
        try:
            applications, _ = model_store(store).usable()
        except StoreError as error:
            raise ConfigurationError(str(error)) from error
    if nodes is not None:
        kinds = dict(known_kinds())
        if HERE in nodes:
            kinds[HERE] = this_machine()
        return parse_nodes(nodes, kinds), applications
    if state is None:
        raise SourceError(
            "the system says nothing of its nodes: is its resource monitor running (splitplace status)?"
        )
    return from_states(state.nodes), applications


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


def chosen_calibration(file: Path | None, state_dir: Path | None) -> Calibration:
    """Return the calibration of a file, else that of the state folder, else the shipped one.

    Raises:
        CalibrationError: it cannot be read, or there is none.
    """
    if file is not None:
        return read_calibration(file)
    own = paths(state_dir).calibration
    return read_calibration(own) if own.is_file() else shipped_calibration()


def this_machine() -> NodeKind:
    """Measure what this machine would be as a node. Raises MissingExtraError."""
    try:
        from splitplace.edge_node import available_memory, benchmark, cores  # noqa: PLC0415 - needs ONNX Runtime
    except ModuleNotFoundError as error:
        raise MissingExtraError("splitplace plan --nodes here", str(error.name), "edge") from error
    threads = cores.usable_cores()
    gains = benchmark.measure_gains(threads)
    free = available_memory.available_bytes()
    speed = benchmark.measure_score() * max(1.0, gains.alone)
    budget = available_memory.shares(free).budget_bytes if free is not None else 512_000_000
    return NodeKind(
        title="this machine",
        cores=threads,
        together=max(1.0, gains.together / max(1.0, gains.alone)),
        speed=speed,
        memory=budget / 1e6,
        link=100.0,
        basis="measured now",
    )


async def _ask(settings: Settings) -> tuple[ClusterState | None, Sequence[Application]]:
    async with connected(settings, "plan") as client:
        seen = await retained(client, settings, (CLUSTER_NODE, CLUSTER_MEMBERS, APPLICATION))
    if seen.unreadable:
        raise SourceError(f"{may_not_read(settings, seen.unreadable)}: plan as an operator")
    return cluster_seen(seen), tuple(seen.messages(APPLICATION))
