"""A split policy that looks ahead, as a reference for others."""

from collections.abc import Callable
from copy import deepcopy
from math import inf

from typing_extensions import override

from splitplace.policies.placement import Placement, PlacementRequest, place
from splitplace.policies.prediction import Job
from splitplace.policies.scoring import reward
from splitplace.policies.splitting import Decision, SplitContext
from splitplace.policies.splitting.interface import StatelessSplit
from splitplace.simulator.departure import DISPATCH_HOPS, Departure
from splitplace.simulator.simulation import Simulation
from splitplace.simulator.twin import twin

ORACLE = "oracle"
"""Its name on the command line."""

UPPER_BOUND = "upper-bound"
"""Name of a row of experiments that is no policy: `simulator/upper_bound.py`."""

LookAhead = Callable[[str, str], tuple[float, float] | None]


class Oracle(StatelessSplit):
    """Choose the variant with the highest total reward of all running tasks, the new one included.

    It tries every variant on a copy of the world, with the actual future work, until all running tasks end.
    It does not see tasks that arrive later, nor hosts that will fail or change. So its reward is that of
    perfect prediction, not of knowing everything. Among equal rewards it prefers the faster variant.
    """

    name = ORACLE

    def __init__(self) -> None:
        """Create an oracle without a world; set `look_ahead` before it decides."""
        self.look_ahead: LookAhead = _blind

    @override
    def decide(self, context: SplitContext) -> Decision:
        seen = {}
        for arm, _ in context.feasible:
            outcome = self.look_ahead(context.task, arm.variant)
            if outcome is not None:
                seen[arm.variant] = outcome
        if not seen:
            notes = "; ".join(dict.fromkeys(arm.note for arm in context.arms))
            waits = any(arm.temporary or arm.predicted_ms is not None for arm in context.arms)
            return Decision(None, f"nothing can run now: {notes}", can_wait=waits)
        best = max(seen, key=lambda variant: (round(seen[variant][0], 9), -seen[variant][1]))
        rewards = {variant: gained for variant, (gained, _) in seen.items()}
        return Decision(best, f"the future is best with {best}", scores=rewards)


def _blind(task: str, variant: str) -> None:
    raise RuntimeError(f"the oracle has no world in which to try {variant} for {task}")


def sight_into(simulation: Simulation) -> LookAhead:
    """Return a function from task and variant to the total reward and the task's end in ms."""

    def look_ahead(key: str, variant: str) -> tuple[float, float] | None:
        task = simulation.tasks[key]
        application = simulation.applications[task.arrival.application]
        job = Job(application, application.variant(variant), task.arrival.batch)
        start_ms = simulation.now_ms + DISPATCH_HOPS * simulation.monitor.hop_ms
        due_ms = task.arrival.at_ms + task.arrival.deadline_ms
        attempt = simulation.gateway.tasks[key]
        request = PlacementRequest(key, job, start_ms, due_ms, frozenset(attempt.avoid))
        # A copy, so that asking does not change what the policy draws next.
        policy = deepcopy(simulation.placement)
        found = place(policy, request, simulation.view, simulation.now_ms)
        if not isinstance(found, Placement):
            return None
        return _play_out(simulation, Departure(task, attempt.attempt, found.job, found.shares))

    return look_ahead


def _play_out(simulation: Simulation, mine: Departure) -> tuple[float, float]:
    """Return the reward of everything that runs, and the end of this task in ms."""
    world = twin(simulation.world)
    key = mine.task.arrival.task
    for departure in (*simulation.departures.values(), mine):
        departure.start(world)
    grace_ms = simulation.gateway.rules.grace_ms
    last_due_ms = max(execution.due_ms for execution in world.executions.values())
    gained, end_ms = 0.0, inf
    while world.executions and world.events.next_ms <= last_due_ms:
        world.events.step()
        for execution in world.finished:
            in_time = world.events.now_ms <= execution.due_ms
            gained += reward(in_time, execution.job.variant.accuracy)
            if execution.task == key:
                end_ms = world.events.now_ms
        world.finished.clear()
    if grace_ms == inf:  # those that are left come too late, but they come
        late = [execution for execution in world.executions.values() if not execution.is_lost]
        gained += sum([reward(False, execution.job.variant.accuracy) for execution in late])  # noqa: FBT003
    return gained, end_ms
