"""Where a plan takes nodes, networks and calibration from: flags, files, this machine, a running system."""

from collections.abc import Sequence
from pathlib import Path

from splitplace.bus.settings import Settings
from splitplace.commands.shared.places import paths, stored_applications
from splitplace.commands.shared.running_system import ask_system
from splitplace.errors import MissingExtraError
from splitplace.messages.application import Application
from splitplace.planning.kinds import Cluster, NodeKind, from_states, known_kinds, parse_nodes
from splitplace.simulator.calibration import Calibration, read_calibration, shipped_calibration

HERE = "here"
"""The kind of node that this machine would be."""


def nodes_and_networks(
    nodes: str | None, settings: Settings | None, store: Path | None
) -> tuple[Cluster, Sequence[Application]]:
    """Return the nodes and the networks of a plan.

    Args:
        nodes: what `--nodes` says.
        settings: where the running system is; given instead of `nodes`.
        store: the folder of `--store`. Its networks go before those of the system.

    Raises:
        SplitPlaceError: something cannot be read or understood.
    """
    if settings is not None:
        state, applications = ask_system(settings, "plan", store)
        return from_states(state.nodes, broker_link=state.broker_megabytes_per_second), applications
    applications, given = stored_applications(store), nodes or ""
    kinds = dict(known_kinds())
    if HERE in given:
        kinds[HERE] = this_machine()
    return parse_nodes(given, kinds), applications


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
