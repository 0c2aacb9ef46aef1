"""The physical side: hosts that compute, links that carry, tasks that run on them. Decides nothing.

A task runs as in the live system: the gateway sends every micro-batch to the hosts of the first stages, each
host computes and sends its output on, all stages at the same time on different micro-batches, and each call
begins as soon as its input is there. The task is through when the gateway has the last output.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf

from messages.application import Fragment, Stage
from policies.prediction import HOP_MS, Job
from simulator.events import EventQueue
from simulator.hosts import Host
from simulator.network import Link, Network, Transfer
from simulator.processor import Discipline, Footprint, Memory, Processor
from simulator.processor import Job as Computation


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
    online: bool = True
    boots: int = 1
    runs: dict["StageRun", None] = field(default_factory=dict)
    """Stages that are placed on it and not through."""


@dataclass(slots=True, eq=False)
class StageRun:
    """One stage of a running task. Micro-batches keep their order, so counts say all."""

    execution: "Execution"
    stage: Stage
    fragment: Fragment
    machine: Machine
    source: "StageRun | None"
    """None where it reads the task's input."""
    children: list["StageRun"] = field(default_factory=list)
    ready: int = 0
    """Micro-batches whose input is ready to be sent here."""
    sent: int = 0
    received: int = 0
    computed: int = 0
    returned: int = 0
    """Of a sink: outputs that left for the gateway."""
    transfer: Transfer | None = None
    returning: Transfer | None = None
    computation: Computation | None = None
    moving: Transfer | None = None
    left_work: float | None = None
    """Of a computation that was interrupted by a move."""
    ready_ms: float = 0.0
    """When the last micro-batch's input was ready; then when it was here, computed, and at the gateway."""
    received_ms: float = 0.0
    computed_ms: float = 0.0
    returned_ms: float = inf
    compute_ms: float = 0.0
    """Time in which it computed, over all micro-batches."""
    began_ms: float = 0.0

    @property
    def remaining(self) -> float:
        """Share of its work that is still to do, in [0, 1]."""
        sizes = self.execution.job.micro_batches
        if self.computed >= len(sizes):
            return 0.0
        share = float(sum(sizes[self.computed :]))
        if self.computation is not None:
            work = self.execution.work(self, self.computed)
            if work > 0:
                done = 1 - self.machine.processor.left(self.computation) / work
                share -= done * sizes[self.computed]
        return min(1.0, share / self.execution.job.batch)


@dataclass(slots=True, eq=False)
class Execution:
    """A task on its hosts."""

    task: str
    attempt: int
    job: Job
    due_ms: float
    began_ms: float
    slowness: float = 1.0
    """By what this task's work differs from its fragments' measured times."""
    runs: dict[str, StageRun] = field(default_factory=dict)
    """By the stage's name."""
    sinks_left: int = 0
    moved_bytes: float = 0.0
    migrations: int = 0

    def work(self, run: StageRun, micro_batch: int) -> float:
        """Work of one call, in score-ms."""
        fragment, images = run.fragment, self.job.micro_batches[micro_batch]
        milliseconds = fragment.milliseconds_per_call + images * fragment.milliseconds_per_image
        return milliseconds * self.slowness * self.job.application.reference_score

    @property
    def critical(self) -> tuple[float, float]:
        """Transfer and compute time on the path to the output that came last; together all since it began."""
        run: StageRun | None = max(self.runs.values(), key=_end_ms)
        computing_ms = 0.0
        end_ms = run.returned_ms if run else self.began_ms
        while run is not None:
            computing_ms += run.computed_ms - run.received_ms
            run = run.source
        return end_ms - self.began_ms - computing_ms, computing_ms


def _end_ms(run: StageRun) -> float:
    return run.returned_ms if run.returned_ms < inf else -inf


class World:
    """All machines and what runs on them."""

    def __init__(
        self,
        machines: Sequence[tuple[str, Host]],
        *,
        broker_megabytes_per_second: float,
        discipline: Discipline = "shared",
        through_broker: bool = False,
        compute_factor: float = 1.0,
        network_factor: float = 1.0,
        memory_factor: float = 1.0,
        extra_latency_ms: float = 0.0,
    ) -> None:
        """A world in which nothing runs yet.

        Args:
            machines: the hosts, with their names.
            broker_megabytes_per_second: bandwidth of the machine on which broker and gateway run.
            discipline: how hosts share their CPU.
            through_broker: whether what hosts send each other crosses the broker's link too.
            compute_factor: hosts are so many times faster than stated.
            network_factor: the same of all bandwidths.
            memory_factor: the same of memory sizes.
            extra_latency_ms: added to every host's (a cloud far away).
        """
        self.events = EventQueue()
        self.finished: list[Execution] = []
        """What is through since somebody last looked."""
        self.executions: dict[str, Execution] = {}
        """What runs, by task."""
        self.network = Network(self.events)
        broker = broker_megabytes_per_second * network_factor
        self._broker_in, self._broker_out = Link(broker), Link(broker)
        self._through_broker = through_broker
        self.machines: dict[str, Machine] = {}
        for name, host in machines:
            memory_bytes = 1e6 * host.memory_megabytes * memory_factor
            processor = Processor(
                self.events,
                host.score * compute_factor,
                host.concurrency,
                Memory(memory_bytes, host.swap_slowness),
                host.power_watts,
                discipline,
            )
            bandwidth = host.megabytes_per_second * network_factor
            self.machines[name] = Machine(
                name,
                host,
                processor,
                Link(bandwidth),
                Link(bandwidth),
                host.latency_ms + extra_latency_ms,
                memory_bytes,
            )

    # --- what is asked of it ---------------------------------------------------------------------------

    def start(
        self,
        task: str,
        attempt: int,
        job: Job,
        nodes: Mapping[str, str],
        *,
        due_ms: float = inf,
        slowness: float = 1.0,
    ) -> Execution:
        """The gateway sends a task's inputs now.

        Args:
            task: its key; must not be running.
            attempt: which try this is.
            job: what is to run.
            nodes: the host of every stage, by the stage's name.
            due_ms: its deadline.
            slowness: by what its work differs from its fragments' measured times.
        """
        execution = Execution(task, attempt, job, due_ms, self.events.now_ms, slowness)
        for stage in job.variant.stages:
            source = execution.runs.get(stage.source)
            machine = self.machines[nodes[stage.name]]
            run = StageRun(execution, stage, job.fragments[stage.name], machine, source)
            execution.runs[stage.name] = run
            machine.runs[run] = None
            if source is not None:
                source.children.append(run)
        execution.sinks_left = len(job.sinks)
        self.executions[task] = execution
        for run in execution.runs.values():
            if run.source is None:
                run.ready = len(job.micro_batches)
                run.ready_ms = self.events.now_ms
                self._pump(run)
        return execution

    def cancel(self, task: str) -> None:
        """Stop whatever runs of a task."""
        execution = self.executions.pop(task, None)
        for run in execution.runs.values() if execution else ():
            self._halt(run)
            run.machine.runs.pop(run, None)

    def migrate(self, task: str, stage: str, node: str) -> bool:
        """Move a stage to another host, with its state and the inputs it has; whether that was possible.

        A stage to which nothing was sent yet moves at no cost. One that runs stops, is sent over the network
        (its memory, and inputs that wait), and goes on.
        """
        execution = self.executions.get(task)
        run = execution.runs.get(stage) if execution else None
        target = self.machines.get(node)
        if execution is None or run is None or target is None or not target.online:
            return False
        micro_batches = len(execution.job.micro_batches)
        if run.moving is not None or run.machine is target or run.computed >= micro_batches:
            return False
        sizes = execution.job.micro_batches
        waiting = sum(sizes[run.computed : run.received]) * run.fragment.input.bytes_per_image
        state = 0.0 if run.computation is None else float(run.fragment.peak_memory_bytes)
        origin = run.machine
        if run.computation is not None:
            run.left_work = origin.processor.stop(run.computation)
            run.compute_ms += self.events.now_ms - run.began_ms
            run.computation = None
        if run.transfer is not None:
            self.network.stop(run.transfer)  # the micro-batch at hand is sent anew, to the new host
            run.transfer = None
        del origin.runs[run]
        run.machine = target
        target.runs[run] = None
        if waiting + state > 0:
            execution.migrations += 1
            self._move(run, origin, target, waiting + state)
        else:
            self._pump(run)
        return True

    def fail(self, node: str) -> tuple[str, ...]:
        """A host dies. All tasks with a stage on it stop; returns them."""
        machine = self.machines[node]
        machine.online = False
        lost = tuple(
            task
            for task, execution in self.executions.items()
            if any(run.machine is machine for run in execution.runs.values())
        )
        for task in lost:
            self.cancel(task)
        machine.processor.set_powered(powered=False)
        return lost

    def recover(self, node: str) -> None:
        """A host is back, with nothing to do."""
        machine = self.machines[node]
        machine.online = True
        machine.boots += 1
        machine.processor.set_powered(powered=True)

    def set_link(self, node: str, megabytes_per_second: float, latency_ms: float) -> None:
        """A host's network changes."""
        machine = self.machines[node]
        machine.latency_ms = latency_ms
        self.network.set_bandwidth(machine.up, megabytes_per_second)
        self.network.set_bandwidth(machine.down, megabytes_per_second)

    # --- inside ----------------------------------------------------------------------------------------

    def _pump(self, run: StageRun) -> None:
        """Begin what can begin of a stage."""
        if run.moving is not None:
            return
        execution = run.execution
        sizes = execution.job.micro_batches
        if run.transfer is None and run.sent < run.ready:
            size = float(sizes[run.sent] * run.fragment.input.bytes_per_image)
            execution.moved_bytes += size
            sender = run.source.machine if run.source is not None else None
            run.transfer = self.network.send(size, self._links(sender, run.machine), partial(self._sent, run))
        if run.computation is None and run.computed < run.received:
            work = run.left_work if run.left_work is not None else execution.work(run, run.computed)
            run.left_work = None
            run.began_ms = self.events.now_ms
            run.computation = run.machine.processor.start(
                work,
                partial(self._computed, run),
                due_ms=execution.due_ms,
                footprint=Footprint(
                    run.fragment.sha256,
                    run.fragment.weight_bytes,
                    run.fragment.peak_memory_bytes - run.fragment.weight_bytes,
                ),
            )

    def _links(self, sender: Machine | None, receiver: Machine | None) -> tuple[Link, ...]:
        """What a transfer crosses; None stands for the gateway."""
        if sender is None:
            return (self._broker_out, receiver.down) if receiver else ()
        if receiver is None:
            return (sender.up, self._broker_in)
        if self._through_broker:
            return (sender.up, self._broker_in, self._broker_out, receiver.down)
        return (sender.up, receiver.down)

    def _sent(self, run: StageRun) -> None:
        run.transfer = None
        run.sent += 1
        latency_ms = HOP_MS + run.machine.latency_ms
        if run.source is not None:
            latency_ms += run.source.machine.latency_ms
        self.events.after(latency_ms, partial(self._received, run))
        self._pump(run)

    def _received(self, run: StageRun) -> None:
        if self.executions.get(run.execution.task) is run.execution:  # it was not cancelled on the way
            run.received += 1
            run.received_ms = self.events.now_ms
            self._pump(run)

    def _computed(self, run: StageRun) -> None:
        now_ms = self.events.now_ms
        run.computation = None
        run.compute_ms += now_ms - run.began_ms
        run.computed += 1
        run.computed_ms = now_ms
        for child in run.children:
            child.ready += 1
            child.ready_ms = now_ms
            self._pump(child)
        if not run.children:
            self._return(run)
        if run.computed < len(run.execution.job.micro_batches):
            self._pump(run)
        elif run.children:
            run.machine.runs.pop(run, None)

    def _return(self, run: StageRun) -> None:
        """Send a sink's outputs to the gateway, one after the other."""
        if run.returning is None and run.returned < run.computed:
            images = run.execution.job.micro_batches[run.returned]
            size = float(images * run.fragment.output.bytes_per_image)
            run.execution.moved_bytes += size
            run.returning = self.network.send(
                size, self._links(run.machine, None), partial(self._returned, run)
            )

    def _returned(self, run: StageRun) -> None:
        run.returning = None
        run.returned += 1
        if run.returned == len(run.execution.job.micro_batches):
            run.machine.runs.pop(run, None)
            delay_ms = 2 * HOP_MS + run.machine.latency_ms  # to the aggregator, to the gateway
            self.events.after(delay_ms, partial(self._sink_through, run))
        else:
            self._return(run)

    def _sink_through(self, run: StageRun) -> None:
        execution = run.execution
        if self.executions.get(execution.task) is not execution:
            return
        run.returned_ms = self.events.now_ms
        execution.sinks_left -= 1
        if not execution.sinks_left:
            del self.executions[execution.task]
            self.finished.append(execution)

    def _move(self, run: StageRun, origin: Machine, target: Machine, size: float) -> None:
        run.execution.moved_bytes += size
        done: Callable[[], None] = partial(self._moved, run)
        run.moving = self.network.send(size, self._links(origin, target), done)

    def _moved(self, run: StageRun) -> None:
        run.moving = None
        self._pump(run)

    def _halt(self, run: StageRun) -> None:
        for transfer in (run.transfer, run.returning, run.moving):
            if transfer is not None:
                self.network.stop(transfer)
        if run.computation is not None:
            run.machine.processor.stop(run.computation)
        run.transfer = run.returning = run.moving = run.computation = None
