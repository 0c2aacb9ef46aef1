"""Play out another placement of a task on a copy of the world."""

from collections.abc import Mapping
from math import inf

from splitplace.messages.task import TaskFinished
from splitplace.policies.placement import PlacementRequest
from splitplace.policies.prediction import on_nodes
from splitplace.services.gateway import answers
from splitplace.services.gateway.instructions import Finish, unique
from splitplace.simulator.departure import Departure
from splitplace.simulator.outputs import result_of
from splitplace.simulator.simulation import Simulation
from splitplace.simulator.twin import twin


def played_out(
    simulation: Simulation, request: PlacementRequest, nodes: Mapping[str, str], *, name: str
) -> TaskFinished:
    """Return how the task would end on these nodes, beside everything that runs now, without later arrivals.

    Args:
        simulation: a simulation in which the task has neither started nor ended.
        request: the task.
        nodes: the node of every stage, by stage name.
        name: name of the task in the answer.

    Raises:
        KeyError: the task has ended.
        RuntimeError: the task never ends on these nodes.
    """
    task = simulation.tasks[request.task]
    world = twin(simulation.world)
    for other in simulation.departures.values():
        other.start(world)
    attempt = simulation.gateway.tasks[request.task].attempt
    mine = Departure(task, attempt, request.job, on_nodes(nodes)).start(world)
    while request.task in world.executions:
        if world.events.next_ms == inf:
            raise RuntimeError(f"{request.task} never ends on {', '.join(sorted(set(nodes.values())))}")
        world.events.step()
    arrival = task.arrival
    finish = Finish(
        key=name,
        attempt=attempt,
        application=arrival.application,
        batch=arrival.batch,
        deadline_ms=arrival.deadline_ms,
        status="answered",
        reason="played out",
        response_ms=world.events.now_ms - arrival.at_ms,
        result=result_of(mine),
        decided=None,
        nodes=unique(nodes.values()),
    )
    return answers.finished(finish, request.job.application)
