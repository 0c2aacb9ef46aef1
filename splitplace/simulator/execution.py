"""A task on its hosts: what has been sent, computed and returned of each stage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from splitplace.messages.application import Fragment, Stage
from splitplace.policies import cost
from splitplace.policies.prediction import Job
from splitplace.simulator.holdings import Holdings
from splitplace.simulator.hosts import Host
from splitplace.simulator.network import Link, Transfer
from splitplace.simulator.processor import Computation, Processor


@dataclass(slots=True, eq=False)
class Machine:
    """A host at work."""

    name: str
    host: Host
    processor: Processor
    up: Link
    down: Link
    latency_ms: float
    memory_bytes: float
    nominal_megabytes_per_second: float
    """Undisturbed bandwidth."""
    nominal_latency_ms: float
    online: bool = True
    boots: int = 1
    runs: dict["StageRun", None] = field(default_factory=dict)
    """Stages that are placed on it and not finished."""
    holdings: Holdings | None = None
    """What it has loaded; None = everything."""

    @property
    def containers(self) -> bool:
        """Whether each task has containers of its own, as where tasks share the processor."""
        return self.processor.discipline == "shared"

    @property
    def threads(self) -> int:
        """Calls that it may run at once, where it works like a node."""
        return 1 if self.containers else self.host.cores

    @property
    def compresses(self) -> bool:
        """Whether it compresses what it sends to other hosts, as a node does unless it was told otherwise."""
        return self.up.bytes_per_ms < 1000 * cost.COMPRESS_BELOW_MEGABYTES_PER_SECOND

    @property
    def together(self) -> float:
        """Speed of so many calls at once, against one at a time."""
        return 1.0 if self.containers else self.host.together


@dataclass(slots=True, eq=False)
class StageRun:
    """One stage of a running task on a host, or a replica's share of it.

    Inputs are sent, computed and returned in the order in which they become ready, so counts say all.
    """

    execution: "Execution"
    stage: Stage
    fragment: Fragment
    machine: Machine
    numbers: Sequence[int]
    """Micro-batches that run here."""
    sources: tuple["StageRun", ...] = ()
    """What makes their inputs; empty where it reads the task's input."""
    children: list["StageRun"] = field(default_factory=list)
    inputs: list[tuple[int, "StageRun | None"]] = field(default_factory=list)
    """Micro-batches whose input was ready to be sent here, in that order, and what made it."""
    sent: int = 0
    received: int = 0
    computed: int = 0
    returned: int = 0
    """Outputs of a sink that have left for the gateway."""
    transfer: Transfer | None = None
    returning: Transfer | None = None
    computation: Computation | None = None
    moving: Transfer | None = None
    left_work: float | None = None
    """Work left of a computation that a move interrupted, in score-ms."""
    received_ms: float = 0.0
    """When the input of the last micro-batch arrived; below, when it was computed and was at the gateway."""
    computed_ms: float = 0.0
    returned_ms: float = inf
    compute_ms: float = 0.0
    """Computing time of all micro-batches."""
    began_ms: float = 0.0
    """When the present computation began."""
    lost: bool = False
    """Whether its host died: nothing more comes from it."""

    @property
    def owes(self) -> bool:
        """Whether some output of it has not left its host."""
        if not self.children:
            return self.returned < len(self.numbers)
        return any(child.lacks(self) for child in self.children)

    @property
    def arrived(self) -> int:
        """Outputs of this sink that the aggregator has. Only the last one's way is modelled."""
        last = len(self.numbers)
        return self.returned if self.returned < last or self.returned_ms < inf else last - 1

    @property
    def remaining(self) -> float:
        """Share of its work that is left, in [0, 1]."""
        sizes = self.execution.job.micro_batches
        every = sum([sizes[number] for number in self.numbers])
        images = float(every) - sum([self.images(place) for place in range(self.computed)])
        if self.computation is not None:
            work = self.execution.work(self, self.computed)
            done = 1 - self.machine.processor.left(self.computation) / work if work > 0 else 1.0
            images -= done * self.images(self.computed)
        return max(0.0, min(1.0, images / every))

    def images(self, place: int) -> int:
        """Return the images in an input, by its place in `inputs`."""
        return self.execution.job.micro_batches[self.inputs[place][0]]

    def input_bytes(self, place: int) -> float:
        """Return the bytes of an input as it is sent, by its place in `inputs`."""
        size = float(self.images(place) * self.fragment.input_bytes_per_image)
        source = self.inputs[place][1]
        if source is None or not source.machine.compresses:
            return size
        return size * source.fragment.output_ratio

    def lacks(self, source: "StageRun") -> bool:
        """Whether it still needs an input from a source."""
        numbers = set(source.numbers).intersection(self.numbers)
        return len(numbers) > sum([made is source for _, made in self.inputs[: self.sent]])

    @property
    def waiting_work(self) -> float:
        """Work of the micro-batches that wait for the processor, in score-ms."""
        begun = self.computed + (self.computation is not None)
        return sum([self.execution.work(self, place) for place in range(begun, self.received)])


@dataclass(slots=True, eq=False)
class Execution:
    """An attempt at a task, on its hosts."""

    task: str
    attempt: int
    job: Job
    due_ms: float
    began_ms: float
    slowness: float = 1.0
    """Factor on the measured times of the fragments, for this task."""
    hop_ms: float = cost.HOP_MS
    """Time of each of its hops through the broker."""
    runs: dict[str, StageRun] = field(default_factory=dict)
    """By stage; replicas of a stage by stage and host."""
    sinks_left: int = 0
    moved_bytes: float = 0.0
    migrations: int = 0

    def work(self, run: StageRun, place: int) -> float:
        """Work of one call, by the place of its input, in score-ms."""
        fragment, images = run.fragment, run.images(place)
        milliseconds = fragment.milliseconds_per_call + images * fragment.milliseconds_per_image
        machine, calls = run.machine, len(run.numbers)
        gain = cost.together_gain(calls, float(machine.threads), machine.together)
        return milliseconds * self.slowness * self.job.application.reference_score / gain

    @property
    def is_lost(self) -> bool:
        """Whether a host died that it needs: it never ends."""
        return any(run.lost for run in self.runs.values())

    @property
    def critical_ms(self) -> tuple[float, float]:
        """Transfer and compute time on the path to the output that came last.

        Together they are the time from the beginning until that output was back.
        """
        run: StageRun | None = max(self.runs.values(), key=_returned_ms)
        elapsed_ms = _returned_ms(run) - self.began_ms if run else 0.0
        computing_ms = 0.0
        while run is not None:
            computing_ms += run.computed_ms - run.received_ms
            run = run.inputs[-1][1]
        return elapsed_ms - computing_ms, computing_ms

    def parts_until(self, now_ms: float) -> tuple[float, float]:
        """Transfer and compute time until now, of a task that is answered with some of its branches."""
        elapsed_ms = now_ms - self.began_ms
        computing_ms = min(elapsed_ms, max(run.compute_ms for run in self.runs.values()))
        return elapsed_ms - computing_ms, computing_ms


def _returned_ms(run: StageRun) -> float:
    return run.returned_ms if run.returned_ms < inf else -inf
