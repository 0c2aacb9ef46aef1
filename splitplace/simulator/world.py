"""The physical side: hosts that compute, links that carry, tasks that run on them. Decides nothing.

A task runs as in the live system: the gateway sends every micro-batch to the hosts of the first stages, each
host computes and sends its output on, all stages at the same time on different micro-batches, and each call
begins as soon as its input is there. The task is through when the gateway has the last output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

from splitplace.policies.cost import HOP_MS, RETURN_HOPS, relay_ms
from splitplace.policies.prediction import Job, PlacedShare, on_nodes
from splitplace.simulator.events import EventQueue
from splitplace.simulator.execution import Execution, Machine, StageRun
from splitplace.simulator.holdings import Holdings, load_ms
from splitplace.simulator.hosts import Host
from splitplace.simulator.network import Link, Network
from splitplace.simulator.processor import Discipline, Footprint, HostMemory, Processor


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Properties that all hosts share."""

    broker_megabytes_per_second: float
    """Bandwidth of the machine on which broker and gateway run."""
    discipline: Discipline = "shared"
    through_broker: bool = False
    """Whether transfers between hosts cross the broker's link too."""
    compute_factor: float = 1.0
    """Factor on the speed of all hosts."""
    network_factor: float = 1.0
    memory_factor: float = 1.0
    extra_latency_ms: float = 0.0

    @property
    def broker_bandwidth(self) -> float:
        """Bandwidth of the broker's link as it is simulated, in MB/s."""
        return self.broker_megabytes_per_second * self.network_factor


class World:
    """All machines and what runs on them."""

    def __init__(self, machines: Sequence[tuple[str, Host]], surroundings: Surroundings) -> None:
        """Set up a world in which nothing runs.

        Args:
            machines: the hosts, with their names.
            surroundings: what they have in common.
        """
        self.events = EventQueue()
        self.finished: list[Execution] = []
        """Executions that ended since this list was last emptied."""
        self.executions: dict[str, Execution] = {}
        """Executions by task."""
        self.network = Network(self.events)
        self.surroundings = surroundings
        broker = surroundings.broker_bandwidth
        self.broker_in, self.broker_out = Link(broker), Link(broker)
        self.machines = {name: self._machine(name, host) for name, host in machines}

    def _machine(self, name: str, host: Host) -> Machine:
        around = self.surroundings
        memory_bytes = 1e6 * host.memory_megabytes * around.memory_factor
        bandwidth = host.megabytes_per_second * around.network_factor
        latency_ms = host.latency_ms + around.extra_latency_ms
        processor = Processor(
            self.events,
            host.score * around.compute_factor,
            host.concurrency,
            HostMemory(memory_bytes, host.swap_slowness),
            host.power_watts,
            around.discipline,
        )
        return Machine(
            name,
            host,
            processor,
            Link(bandwidth),
            Link(bandwidth),
            latency_ms,
            memory_bytes,
            nominal_megabytes_per_second=bandwidth,
            nominal_latency_ms=latency_ms,
        )

    def simulate_loading(self, overcommit: float) -> None:
        """Let hosts have only what they load, which takes time and memory. Nothing may run yet.

        Args:
            overcommit: how many times their memory they offer.
        """
        for machine in self.machines.values():
            machine.holdings = Holdings(
                machine.memory_bytes * overcommit,
                load_ms(machine.processor.score),
                self.events,
                self.network,
                self._links(None, machine),
                in_use=partial(_in_use, machine),
                is_idle=partial(_is_idle, machine),
                on_load=partial(self._pump_all, machine),
            )

    # --- what is asked of it ---------------------------------------------------------------------------

    def start(
        self,
        task: str,
        attempt: int,
        job: Job,
        shares: Mapping[str, str] | Sequence[PlacedShare],
        *,
        due_ms: float = inf,
        slowness: float = 1.0,
        hop_ms: float = HOP_MS,
    ) -> Execution:
        """Send a task's inputs now. What goes to a dead host is lost.

        Args:
            task: its key; must not be running.
            attempt: which try this is.
            job: what is to run.
            shares: the host of every stage, by the stage's name, or all replicas.
            due_ms: its deadline.
            slowness: by what its work differs from its fragments' measured times.
            hop_ms: time of each of its hops.
        """
        execution = Execution(task, attempt, job, due_ms, self.events.now_ms, slowness, hop_ms)
        every = range(len(job.micro_batches))
        placed = on_nodes(shares) if isinstance(shares, Mapping) else shares
        for stage in job.variant.stages:
            before = [run for run in execution.runs.values() if run.stage.name == stage.source]
            for share in [share for share in placed if share.stage == stage.name]:
                machine = self.machines[share.node]
                numbers = every if share.micro_batches is None else share.micro_batches
                sources = tuple([run for run in before if not set(numbers).isdisjoint(run.numbers)])
                run = StageRun(execution, stage, job.fragments[stage.name], machine, numbers, sources)
                run.lost = not machine.online
                key = stage.name if share.micro_batches is None else f"{stage.name} on {share.node}"
                execution.runs[key] = run
                if machine.online:
                    machine.runs[run] = None
                    self._can_run(run)
                for source in sources:
                    source.children.append(run)
        execution.sinks_left = sum([not run.children for run in execution.runs.values()])
        self.executions[task] = execution
        for run in execution.runs.values():
            if not run.sources:
                run.inputs = [(number, None) for number in run.numbers]
                self.pump(run)
        return execution

    def cancel(self, task: str) -> None:
        """Stop everything that runs for a task."""
        execution = self.executions.pop(task, None)
        for run in execution.runs.values() if execution else ():
            self._halt(run)
            self._leave(run)

    def migrate(self, task: str, stage: str, node: str) -> bool:
        """Move a stage to another host, with its state and the inputs it has. Return whether it can.

        A stage to which nothing was sent yet moves at no cost. One that runs stops, is sent over the network
        (its memory, and inputs that wait), and goes on.
        """
        execution = self.executions.get(task)
        run = execution.runs.get(stage) if execution else None
        target = self.machines.get(node)
        if execution is None or run is None or target is None or not target.online:
            return False
        origin = run.machine
        if run.lost or run.moving is not None or origin is target or run.computed >= len(run.numbers):
            return False
        waiting = sum([run.images(place) for place in range(run.computed, run.received)])
        size = float(waiting * run.fragment.input_bytes_per_image)
        if run.computation is not None:
            size += run.fragment.peak_memory_bytes
            run.left_work = origin.processor.stop(run.computation)
            run.compute_ms += self.events.now_ms - run.began_ms
            run.computation = None
        if run.transfer is not None:
            self.network.stop(run.transfer)  # the micro-batch at hand is sent anew, to the new host
            run.transfer = None
        self._leave(run)
        run.machine = target
        target.runs[run] = None
        execution.migrations += 1
        if size > 0:
            execution.moved_bytes += size
            run.moving = self.network.send(size, self._links(origin, target), partial(self.moved, run))
        else:
            self.pump(run)
        return True

    def fail(self, node: str) -> None:
        """Kill a host, with everything that it had not sent. Other stages of the same tasks go on."""
        machine = self.machines[node]
        machine.online = False
        for execution in self.executions.values():
            for run in execution.runs.values():
                if run.machine is machine and run.owes:
                    self._lose(run)
        if machine.holdings is not None:
            machine.holdings.lose()
        machine.processor.set_powered(powered=False)

    def recover(self, node: str) -> None:
        """Restart a host, with nothing to do."""
        machine = self.machines[node]
        machine.online = True
        machine.boots += 1
        machine.processor.set_powered(powered=True)

    def disturb(self, node: str, bandwidth_factor: float, extra_latency_ms: float) -> None:
        """Change the network of a host, relative to its nominal one."""
        machine = self.machines[node]
        machine.latency_ms = machine.nominal_latency_ms + extra_latency_ms
        bandwidth = machine.nominal_megabytes_per_second * bandwidth_factor
        self.network.set_bandwidth(machine.up, bandwidth)
        self.network.set_bandwidth(machine.down, bandwidth)

    # --- how stages go on ------------------------------------------------------------------------------

    def pump(self, run: StageRun) -> None:
        """Start the transfer and the computation of a stage that can start now."""
        if run.lost or run.moving is not None:
            return
        execution = run.execution
        if run.transfer is None and run.sent < len(run.inputs):
            size = run.input_bytes(run.sent)
            execution.moved_bytes += size
            source = run.inputs[run.sent][1]
            links = self._links(source.machine if source is not None else None, run.machine)
            run.transfer = self.network.send(size, links, partial(self.sent, run))
        if run.computation is None and run.computed < run.received and self._can_run(run):
            work = run.left_work if run.left_work is not None else execution.work(run, run.computed)
            run.left_work = None
            run.began_ms = self.events.now_ms
            self.compute(run, work)

    def compute(self, run: StageRun, work: float) -> None:
        """Start a call on the host's processor."""
        fragment = run.fragment
        run.computation = run.machine.processor.start(
            work,
            partial(self._computed, run),
            due_ms=run.execution.due_ms,
            footprint=Footprint(
                id(run) if run.machine.containers else fragment.sha256,
                fragment.weight_bytes,
                fragment.peak_memory_bytes - fragment.weight_bytes,
            ),
        )

    def _links(self, sender: Machine | None, receiver: Machine | None) -> tuple[Link, ...]:
        """Return the links that a transfer crosses; None stands for the gateway."""
        up = (sender.up,) if sender else (self.broker_out,)
        down = (receiver.down,) if receiver else (self.broker_in,)
        if sender and receiver and self.surroundings.through_broker:
            return (*up, self.broker_in, self.broker_out, *down)
        return (*up, *down)

    def sent(self, run: StageRun) -> None:
        """Continue after the input of a micro-batch has left its sender."""
        run.transfer = None
        run.sent += 1
        latency_ms = run.execution.hop_ms + run.machine.latency_ms
        source = run.inputs[run.sent - 1][1]
        if source is not None:
            sender = source.machine
            size = run.input_bytes(run.sent - 1)
            faster = max(sender.up.bytes_per_ms, run.machine.down.bytes_per_ms) / 1000
            latency_ms += sender.latency_ms + relay_ms(size, faster)
        self.events.after(latency_ms, partial(self._received, run))
        self.pump(run)

    def _received(self, run: StageRun) -> None:
        if not run.lost and self.executions.get(run.execution.task) is run.execution:  # not cancelled
            run.received += 1
            run.received_ms = self.events.now_ms
            self.pump(run)

    def _computed(self, run: StageRun) -> None:
        now_ms = self.events.now_ms
        run.computation = None
        run.compute_ms += now_ms - run.began_ms
        run.computed += 1
        run.computed_ms = now_ms
        number = run.inputs[run.computed - 1][0]
        for child in run.children:
            if number in child.numbers:
                child.inputs.append((number, run))
                self.pump(child)
        if not run.children:
            self._return(run)
        if run.computed < len(run.numbers):
            self.pump(run)
        elif run.children:
            self._leave(run)
        if run.machine.holdings is not None:
            run.machine.holdings.go_on()

    def _return(self, run: StageRun) -> None:
        """Send the outputs of a sink to the gateway, one after the other."""
        if run.returning is None and run.returned < run.computed:
            size = float(run.images(run.returned) * run.fragment.output_bytes_per_image)
            run.execution.moved_bytes += size
            run.returning = self.network.send(
                size, self._links(run.machine, None), partial(self.returned, run)
            )

    def returned(self, run: StageRun) -> None:
        """Continue after an output of a sink has left it."""
        run.returning = None
        run.returned += 1
        if run.returned == len(run.numbers):
            self._leave(run)
            self.arrive(run)
        else:
            self._return(run)

    def arrive(self, run: StageRun) -> None:
        """Plan the arrival of the last output of a sink at the gateway."""
        delay_ms = RETURN_HOPS * run.execution.hop_ms + run.machine.latency_ms
        self.events.after(delay_ms, partial(self._sink_through, run))

    def _sink_through(self, run: StageRun) -> None:
        execution = run.execution
        if self.executions.get(execution.task) is not execution:
            return
        run.returned_ms = self.events.now_ms
        execution.sinks_left -= 1
        if not execution.sinks_left:
            del self.executions[execution.task]
            self.finished.append(execution)

    def moved(self, run: StageRun) -> None:
        """Continue after a stage has reached its new host."""
        run.moving = None
        self.pump(run)

    def _can_run(self, run: StageRun) -> bool:
        """Whether the fragment of a stage is loaded; else that begins, and the stage goes on afterwards."""
        return run.machine.holdings is None or run.machine.holdings.use(run.fragment)

    def _pump_all(self, machine: Machine) -> None:
        for run in tuple(machine.runs):
            self.pump(run)

    def _leave(self, run: StageRun) -> None:
        """Take a stage off its host."""
        run.machine.runs.pop(run, None)
        if run.machine.holdings is not None:
            run.machine.holdings.go_on()

    def _lose(self, run: StageRun) -> None:
        """Lose a stage and what it was sending."""
        run.lost = True
        run.machine.runs.pop(run, None)
        self._halt(run)
        for child in run.children:
            unsent = child.inputs[child.sent :]
            if child.transfer is not None and unsent[0][1] is run:
                self.network.stop(child.transfer)
                child.transfer = None
            child.inputs[child.sent :] = [each for each in unsent if each[1] is not run]
            self.pump(child)

    def _halt(self, run: StageRun) -> None:
        for transfer in (run.transfer, run.returning, run.moving):
            if transfer is not None:
                self.network.stop(transfer)
        if run.computation is not None:
            run.machine.processor.stop(run.computation)
        run.transfer = run.returning = run.moving = run.computation = None


def _in_use(machine: Machine) -> set[str]:
    """Return hashes of the fragments of stages that stand on a host."""
    return {run.fragment.sha256 for run in machine.runs}


def _is_idle(machine: Machine) -> bool:
    return machine.online and not machine.processor.running
