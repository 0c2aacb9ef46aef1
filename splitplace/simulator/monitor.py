"""The resource monitor of the simulated cluster."""

from collections.abc import Iterable
from typing import NamedTuple

from splitplace.messages.application import Application
from splitplace.messages.cluster import (
    LEAST_BANDWIDTH,
    MAX_FRAGMENTS_LISTED,
    MOST_BANDWIDTH,
    ClusterState,
    FragmentTiming,
    NodeState,
)
from splitplace.policies.cost import HOP_MS
from splitplace.simulator.execution import Machine
from splitplace.simulator.world import World

NOTABLE = 0.02
"""A host reports its fragment timings when they differ by more than this share from what its score says.

A live node always reports them. Where nothing differs, that changes no prediction.
"""


class _Figures(NamedTuple):
    """The figures of a host that change."""

    boots: int
    online: bool
    score: float
    """The score that it measured at its start."""
    speed: float
    """Its score now."""
    queue_ms: float
    queue_length: int
    utilisation: float
    bytes_per_ms: float
    latency_ms: float
    changes: int
    """How often what it has loaded has changed."""


_SELDOM = 4
"""Number of the figures, from the first, that only failures and drift change."""

_NO_QUEUE = (0.0, 0)


class Monitor:
    """Watches the world as a live resource monitor watches heartbeats.

    Every host has every fragment on it, as after the paper's distribution at the start, unless loading is
    simulated.
    """

    def __init__(
        self,
        world: World,
        applications: Iterable[Application],
        hop_ms: float = HOP_MS,
        *,
        overcommit: float = 1.0,
        tells_broker: bool = False,
    ) -> None:
        """Watch a world.

        Args:
            world: the hosts.
            applications: whose fragments the hosts have.
            hop_ms: what a hop through the broker takes, as measured.
            overcommit: how many times their memory the hosts offer.
            tells_broker: whether it tells the bandwidth of the broker's link.
        """
        self.hop_ms = hop_ms
        self._world = world
        self._overcommit = overcommit
        bandwidth = min(MOST_BANDWIDTH, max(LEAST_BANDWIDTH, world.surroundings.broker_bandwidth))
        self._broker = bandwidth if tells_broker else None
        self._fragments = {
            fragment.sha256: fragment.milliseconds_per_image * application.reference_score
            for application in applications
            for fragment in application.fragments
        }
        self._loaded = tuple(self._fragments)
        self._scores = {name: machine.processor.score for name, machine in world.machines.items()}
        """Scores that the hosts measured at their start."""
        self._timings_at: dict[tuple[float, float], tuple[FragmentTiming, ...]] = {}
        """Fragment timings by score and by what is gained at once."""
        self._dead: set[str] = set()
        self._sequence = 0
        self._figures: dict[str, _Figures] = {}
        self._said: dict[str, NodeState] = {}
        """The last state of each host; made anew only when its figures change."""

    def mark_dead(self, node: str) -> None:
        """Note that a host was found dead."""
        self._dead.add(node)

    def mark_alive(self, node: str) -> None:
        """Note that a host has restarted and has measured its speed again."""
        self._dead.discard(node)
        self._scores[node] = self._world.machines[node].processor.score

    def snapshot(self) -> ClusterState:
        """Return the state of all hosts."""
        self._sequence += 1
        nodes = tuple([self._state(machine) for machine in self._world.machines.values()])
        return ClusterState(
            sequence=self._sequence,
            hop_ms=self.hop_ms,
            broker_megabytes_per_second=self._broker,
            nodes=nodes,
        )

    def _state(self, machine: Machine) -> NodeState:
        name, processor = machine.name, machine.processor
        figures = _Figures(
            machine.boots,
            name not in self._dead,
            self._scores[name],
            processor.score,
            *(_queue(machine) if machine.runs else _NO_QUEUE),
            processor.utilisation,
            machine.down.bytes_per_ms,
            machine.latency_ms,
            0 if machine.holdings is None else machine.holdings.changes,
        )
        before = self._figures.get(name)
        if figures != before:
            self._figures[name] = figures
            self._said[name] = self._told(machine, figures, before)
        return self._said[name]

    def _told(self, machine: Machine, figures: _Figures, before: _Figures | None) -> NodeState:
        news: dict[str, object] = {
            "queue_ms": figures.queue_ms,
            "queue_length": figures.queue_length,
            "cpu_ratio": figures.utilisation,
            "link_megabytes_per_second": figures.bytes_per_ms / 1000,
            "up_megabytes_per_second": figures.bytes_per_ms / 1000,
            "round_trip_ms": 2 * figures.latency_ms,
        }
        if before is None or figures[:_SELDOM] != before[:_SELDOM]:
            drifted = abs(figures.speed / figures.score - 1) > NOTABLE
            news |= {
                "boot": f"{figures.boots:016x}",
                "online": figures.online,
                "score": figures.score,
                "timings": self._timings(figures.speed, machine.together) if drifted else (),
            }
        if machine.holdings is not None:
            news |= {
                "loaded": machine.holdings.loaded[-MAX_FRAGMENTS_LISTED:],
                "load_ms": machine.holdings.load_ms,
                "stored": machine.holdings.stored[-MAX_FRAGMENTS_LISTED:],
            }
        if before is None:
            constant = {
                "node": machine.name,
                "silent_ms": 0.0,
                "memory_budget_bytes": int(machine.memory_bytes * self._overcommit),
                "loaded": self._loaded,
                "threads": machine.threads,
                "together": machine.together,
            }
            return NodeState.model_validate(constant | news)
        # Not validated: it does not come from outside, and half of the hosts have news in every snapshot.
        return self._said[machine.name].model_copy(update=news)

    def _timings(self, score: float, together: float) -> tuple[FragmentTiming, ...]:
        if (score, together) not in self._timings_at:
            self._timings_at[score, together] = tuple(
                FragmentTiming(fragment=sha256, milliseconds_per_image=work / score, together=together)
                for sha256, work in self._fragments.items()
            )
        return self._timings_at[score, together]


def _queue(machine: Machine) -> tuple[float, int]:
    """Computing time of what runs and waits on a host, and how many micro-batches that is."""
    waiting = [run for run in machine.runs if run.received > run.computed]
    work = machine.processor.queue_work + sum([run.waiting_work for run in waiting])
    length = sum([run.received - run.computed for run in waiting])
    return max(0.0, work / machine.processor.score), length
