"""Copy a world with all work in progress, for looking ahead."""

from collections.abc import Iterable
from functools import partial

from splitplace.simulator.execution import Execution, StageRun
from splitplace.simulator.network import Link, Transfer
from splitplace.simulator.processor import Processor
from splitplace.simulator.world import World


def twin(world: World) -> World:
    """Return an independent copy of a world in its present state.

    Work and transfers in progress are copied exactly, except for messages within their latency: these few
    milliseconds start again. The usage of hosts so far is not copied.
    """
    copy = World([(name, machine.host) for name, machine in world.machines.items()], world.surroundings)
    copy.events.now_ms = world.events.now_ms
    links: dict[Link, Link] = {world.broker_in: copy.broker_in, world.broker_out: copy.broker_out}
    for name, machine in world.machines.items():
        other = copy.machines[name]
        other.processor.usage.at_ms = world.events.now_ms
        other.processor.set_score(machine.processor.score)
        other.online, other.boots, other.latency_ms = machine.online, machine.boots, machine.latency_ms
        for mine, its in ((machine.up, other.up), (machine.down, other.down)):
            its.bytes_per_ms = mine.bytes_per_ms
            links[mine] = its
    for execution in world.executions.values():
        _carry_over(execution, copy, links)
    return copy


def _carry_over(execution: Execution, copy: World, links: dict[Link, Link]) -> None:
    again = Execution(
        execution.task,
        execution.attempt,
        execution.job,
        execution.due_ms,
        execution.began_ms,
        execution.slowness,
        execution.hop_ms,
        sinks_left=execution.sinks_left,
    )
    copy.executions[execution.task] = again
    others: dict[StageRun | None, StageRun | None] = {None: None}
    for name, run in execution.runs.items():
        machine = copy.machines[run.machine.name]
        other = StageRun(again, run.stage, run.fragment, machine, run.numbers)
        others[run] = again.runs[name] = other
        other.sources = tuple([made for source in run.sources if (made := others[source]) is not None])
        for source in other.sources:
            source.children.append(other)
        other.inputs = [(number, others[source]) for number, source in run.inputs]
        if run in run.machine.runs:
            machine.runs[other] = None
        other.sent, other.computed, other.returned = run.sent, run.computed, run.returned
        other.left_work, other.returned_ms, other.lost = run.left_work, run.returned_ms, run.lost
        other.received_ms, other.computed_ms = run.received_ms, run.computed_ms
        other.received = run.sent  # messages within their latency arrive now
    for name, run in execution.runs.items():
        _resume(run, again.runs[name], copy, links)


def _resume(run: StageRun, other: StageRun, copy: World, links: dict[Link, Link]) -> None:
    """Start in the copy what is in progress for a stage."""

    def resend(transfer: Transfer, done: partial[None]) -> Transfer:
        return copy.network.send(transfer.left_at(run_now_ms), _translated(transfer.links, links), done)

    run_now_ms = copy.events.now_ms
    if run.moving is not None:
        other.moving = resend(run.moving, partial(copy.moved, other))
    if run.transfer is not None:
        other.transfer = resend(run.transfer, partial(copy.sent, other))
    if run.returning is not None:
        other.returning = resend(run.returning, partial(copy.returned, other))
    if run.computation is not None:
        processor: Processor = run.machine.processor
        other.began_ms = run.began_ms
        copy.compute(other, processor.left(run.computation))
    copy.pump(other)
    through = run.returned == len(run.numbers)
    if through and run.returned_ms > copy.events.now_ms:
        copy.arrive(other)


def _translated(crossed: Iterable[Link], links: dict[Link, Link]) -> tuple[Link, ...]:
    return tuple(links[link] for link in crossed)
