"""The log of a simulated run, as `splitplace watch --record` writes that of a live one."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from splitplace.messages.cluster import ClusterState
from splitplace.planning.logged import LogEntry
from splitplace.planning.question import Question
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.running import experience
from splitplace.simulator.simulation import Simulation


def log_of(asked: Question, arrivals: Sequence[Arrival]) -> list[LogEntry]:
    """What `watch --record` would write of a simulation."""
    entries: list[LogEntry] = []
    at_s: Callable[[Simulation], float] = lambda simulation: 1e9 + simulation.now_ms / 1000  # noqa: E731

    def note(simulation: Simulation, original: Callable[..., Any], message: Any, *rest: Any) -> Any:
        entries.append((at_s(simulation), message))
        return original(message, *rest)

    def prepare(simulation: Simulation) -> None:
        snapshot: ClusterState = simulation.monitor.snapshot()
        entries.append((1e9, snapshot))
        placer: Any = simulation.placer
        placer.place = partial(note, simulation, placer.place)
        placer.finished = partial(note, simulation, placer.finished)

    scenario = asked.scenario(arrivals, 0.0)
    experience(scenario, asked.policy, "0", prepare=prepare, workload=asked.workload, tasks=arrivals)
    return entries
