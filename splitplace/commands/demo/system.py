"""The processes of a demo: five services, the nodes under their CPU shares, the sensors."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from splitplace.bus.settings import Settings
from splitplace.commands.demo.plan import NodePlan
from splitplace.commands.demo.workload import TightDeadline
from splitplace.commands.processes.children import Child, Processes
from splitplace.commands.processes.cpu_shares import CpuShares
from splitplace.commands.shared.service_processes import service_processes
from splitplace.messages.topics import NODE
from splitplace.policies.pairs import PolicyPair
from splitplace.storage.model_store import ModelStore

SENSOR = Path(__file__).with_name("sensor.py")


def start_services(
    processes: Processes,
    settings: Settings,
    store: ModelStore,
    folder: Path,
    *,
    policy: PolicyPair | None,
    arms: str,
    apart: bool,
    only: str | None = None,
) -> None:
    """Start services, with their files below `folder`.

    Args:
        processes: Where the processes are started.
        settings: Broker and topic prefix.
        store: The networks to serve.
        folder: For journal and state.
        policy: Split and placement policy; None leaves them to the services' settings.
        arms: Variants to choose among.
        apart: Whether each is a process of its own.
        only: The one process to start; by default all.
    """
    state = ["--state-dir", str(folder / "state")]
    variables = {**_store_variable(store), "SPLITPLACE_ARMS": arms}
    for name, flags in service_processes(policy, apart=apart).items():
        if only in {None, name}:
            command = [*_python(name), *_shared(settings), *state, *flags]
            processes.start(name, command, variables=variables)


def start_nodes(
    processes: Processes, settings: Settings, plans: Sequence[NodePlan], shares: CpuShares, folder: Path
) -> None:
    """Start the nodes, each limited to its share from its first moment: slow devices start slowly too."""
    for plan in plans:
        flags = [
            *("--node", plan.name),
            *("--cpu-share", str(plan.cpu_share)),
            *("--cores", "1"),
            *("--memory-budget-mb", str(plan.memory_budget_mb)),
            *("--fragment-dir", str(folder / "nodes" / plan.name)),
        ]
        if shares.mechanism == "pacing":
            flags.append("--pacing")
        child = processes.start(plan.name, [*_python(NODE), *_shared(settings), *flags])
        if child.pid is not None:
            shares.limit(plan.name, child.pid, plan.cpu_share)


def start_sensor(
    processes: Processes,
    settings: Settings,
    *,
    name: str,
    application: str,
    samples: Path,
    tasks: int,
    rate: float,
    seed: int,
    report: Path,
    batch_max: int,
    deadline: TightDeadline | None,
    loosest: float,
) -> Child:
    """Start a sensor of one application: a program that imports nothing of this package."""
    flags = {
        "--broker": settings.broker,
        "--prefix": settings.prefix,
        "--name": name,
        "--application": application,
        "--samples": str(samples),
        "--tasks": str(tasks),
        "--rate": str(rate),
        "--seed": str(seed),
        "--report": str(report),
        "--batch-max": str(batch_max),
        "--loosest": str(loosest),
    }
    if deadline is not None:
        flags |= {"--tight-ms": str(deadline.ms), "--tight-ms-per-image": str(deadline.ms_per_image)}
    arguments = [part for flag in flags.items() for part in flag]
    return processes.start(name, [sys.executable, str(SENSOR), *arguments])


def remove(folder: Path) -> None:
    """Remove what a demo has written."""
    shutil.rmtree(folder, ignore_errors=True)


def _store_variable(store: ModelStore) -> dict[str, str]:
    """Return what shows the splitter the same networks, although its state folder differs."""
    name = "SPLITPLACE_STORE" if store.folders == (store.root,) else "SPLITPLACE_OWN_STORE"
    return {name: str(store.root.absolute())}


def _python(part: str) -> list[str]:
    return [sys.executable, "-m", "splitplace", part]


def _shared(settings: Settings) -> list[str]:
    return ["--broker", settings.broker, "--prefix", settings.prefix]
