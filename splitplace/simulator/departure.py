"""A simulated task with what is drawn for it, and the moment at which its inputs are sent."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp
from random import Random

from splitplace.messages.application import Application
from splitplace.messages.groupings import as_placed
from splitplace.messages.task import TaskPlaced
from splitplace.policies.cost import HOP_MS
from splitplace.policies.prediction import Job, PlacedShare
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.execution import Execution
from splitplace.simulator.scenario import Scenario
from splitplace.simulator.world import World

DISPATCH_HOPS = 2
"""Decision to placer, placement to gateway."""

DISPATCH_MS = DISPATCH_HOPS * HOP_MS
"""What they take where nothing was calibrated."""


@dataclass(frozen=True, slots=True)
class SimulatedTask:
    """A task that is not over."""

    arrival: Arrival
    slowness: float = 1.0
    """By what its work differs from its fragments' measured times."""
    hop_ms: float = HOP_MS
    """Time of each of its hops."""
    intake_ms: float = 0.0
    """From its arrival until the gateway has it in its journal."""


def drawn(tasks: Iterable[Arrival], scenario: Scenario, random: Random) -> Iterator[SimulatedTask]:
    """Draw what the simulated world does to each task: by the calibration, or by `work_noise` alone."""
    known = scenario.calibration
    for task in tasks:
        if known is None:
            noise = scenario.work_noise
            yield SimulatedTask(task, exp(random.gauss(0.0, noise)) if noise else 1.0)
        else:
            yield SimulatedTask(
                task,
                known.work.draw(random),
                known.hop_ms * known.hops.draw(random),
                known.intake.draw(random),
            )


@dataclass(frozen=True, slots=True)
class Departure:
    """A task whose inputs are about to be sent."""

    task: SimulatedTask
    attempt: int
    job: Job
    shares: Sequence[PlacedShare]

    @classmethod
    def of(
        cls, task: SimulatedTask, attempt: int, application: Application, placed: TaskPlaced
    ) -> "Departure":
        """Return the departure of a task as it was placed, in the stages that were chosen for it."""
        grouped = as_placed(application, placed)
        variant = application.variant(placed.variant)
        job = Job(application, variant, task.arrival.batch, cut=placed.micro_batch)
        shares = [
            PlacedShare(share.stage, share.node, share.work_ms, share.micro_batches)
            for share in placed.stages
        ]
        return cls(task, attempt, job.regrouped(grouped) if grouped.runs else job, shares)

    @property
    def due_ms(self) -> float:
        """The task's deadline."""
        return self.task.arrival.at_ms + self.task.arrival.deadline_ms

    def start(self, world: World) -> Execution:
        """Send the inputs, in this world. Raises KeyError for a host that is not there."""
        return world.start(
            self.task.arrival.task,
            self.attempt,
            self.job,
            self.shares,
            due_ms=self.due_ms,
            slowness=self.task.slowness,
            hop_ms=self.task.hop_ms,
        )
