"""What another placement of a task would bring: played out on a copy of the world, nobody else noticing."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from splitplace.messages.task import TaskFinished
from splitplace.policies.placement import PlacementRequest
from splitplace.simulator.accounting import finished_of, record_of
from splitplace.simulator.simulation import Dispatch, Simulation
from splitplace.simulator.twin import twin


def played_out(
    simulation: Simulation, request: PlacementRequest, nodes: Mapping[str, str], *, name: str
) -> TaskFinished:
    """How the task would end on these nodes, together with all that runs but without what is yet to arrive.

    Args:
        simulation: in which the task is not over and does not run.
        request: the task.
        nodes: of every stage, by the stage's name.
        name: of the task in the answer.

    Raises:
        KeyError: the task is over.
        RuntimeError: it never ends.
    """
    task = simulation.tasks[request.task]
    world = twin(simulation.world)
    for other in simulation.dispatches.values():
        other.start(world)
    mine = Dispatch(task, task.attempt, request.job, nodes).start(world)
    while request.task in world.executions:
        if world.events.next_ms == inf:
            raise RuntimeError(f"{request.task} never ends on {', '.join(sorted(set(nodes.values())))}")
        world.events.step()
    arrival = replace(task.arrival, task=name)
    record = record_of(
        arrival,
        "answered",
        world.events.now_ms,
        variant=request.job.variant.name,
        accuracy=request.job.variant.accuracy,
        attempts=task.attempt,
        explored=False,
        execution=mine,
    )
    return finished_of(
        record,
        world.events.now_ms - arrival.at_ms,
        reason="played out",
        predicted_ms=None,
        execution=mine,
    )
