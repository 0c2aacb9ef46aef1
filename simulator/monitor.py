"""The resource monitor of the simulated cluster: what deciders are told of the hosts."""

from collections.abc import Mapping

from messages.cluster import ClusterState, FragmentTiming, NodeState
from simulator.world import Machine, World

NOTABLE = 0.02
"""A host tells how long fragments take there when that differs by more from what its score says.

A live node always tells; where nothing differs, that changes no prediction.
"""


class Monitor:
    """Looks at the world as a live resource monitor does at vitals: a snapshot now and then."""

    def __init__(self, world: World, fragments: Mapping[str, tuple[float, float]]) -> None:
        """A monitor that has not looked yet.

        Args:
            world: what to look at.
            fragments: all there are, with milliseconds per item and the score of the machine on which that
                was measured. Every host has all of them, as after the paper's distribution at the start.
        """
        self._world = world
        self._fragments = fragments
        self._loaded = tuple(fragments)
        self._scores = {name: machine.processor.score for name, machine in world.machines.items()}
        """What each host measured of itself when it started."""
        self._dead: set[str] = set()
        self._sequence = 0
        self._said: dict[str, NodeState] = {}

    def mark_dead(self, node: str, *, dead: bool) -> None:
        """A host was found dead, or is back (and measures itself anew)."""
        if dead:
            self._dead.add(node)
        else:
            self._dead.discard(node)
            self._scores[node] = self._world.machines[node].processor.score

    def snapshot(self) -> ClusterState:
        """All hosts now."""
        self._sequence += 1
        for name, machine in self._world.machines.items():
            self._said[name] = self._state(machine, self._said.get(name))
        return ClusterState(sequence=self._sequence, nodes=tuple(self._said.values()))

    def _state(self, machine: Machine, before: NodeState | None) -> NodeState:
        processor = machine.processor
        score = self._scores[machine.name]
        queue_ms, queue_length = _queue(machine)
        boot = f"{machine.boots:016x}"
        online = machine.name not in self._dead
        link = machine.down.bytes_per_ms / 1000
        drifted = abs(processor.score / score - 1) > NOTABLE
        if before is not None and not drifted and not before.timings:
            same = (before.queue_ms, before.queue_length, before.boot, before.online)
            if (
                same == (queue_ms, queue_length, boot, online)
                and before.link_megabytes_per_second == link
                and before.score == score
            ):
                return before
        return NodeState(
            node=machine.name,
            boot=boot,
            online=online,
            silent_ms=0.0,
            score=score,
            memory_budget_bytes=int(machine.memory_bytes),
            loaded=self._loaded,
            queue_ms=queue_ms,
            queue_length=queue_length,
            cpu_ratio=processor.utilisation,
            link_megabytes_per_second=link,
            timings=self._timings(processor.score) if drifted else (),
        )

    def _timings(self, score: float) -> tuple[FragmentTiming, ...]:
        return tuple(
            FragmentTiming(fragment=sha256, milliseconds_per_image=image_ms * reference / score)
            for sha256, (image_ms, reference) in self._fragments.items()
        )


def _queue(machine: Machine) -> tuple[float, int]:
    """Computing time of what runs and waits on a host, and how many micro-batches that is."""
    if not machine.runs:
        return 0.0, 0
    work, length = machine.processor.queue_work, 0
    for run in machine.runs:
        begun = run.computed + (run.computation is not None)
        work += sum([run.execution.work(run, number) for number in range(begun, run.received)])
        length += run.received - run.computed
    return max(0.0, work / machine.processor.score), length
