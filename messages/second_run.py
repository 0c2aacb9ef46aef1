"""A second run of the micro-batches of a task whose outputs are overdue: who notices, and where they run."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from splitplace.messages.base import Attempt, Message
from splitplace.messages.limits import MAX_DEALT
from splitplace.messages.names import TaskKey
from splitplace.messages.task import TaskPlaced

MicroBatches = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=MAX_DEALT)], ...], Field(min_length=1, max_length=MAX_DEALT)
]
"""Numbers of micro-batches, ascending."""


class TaskLagging(Message):
    """The outputs of these micro-batches are overdue. On `job/<task>/lagging`."""

    task: TaskKey
    attempt: Attempt
    micro_batches: MicroBatches


class SecondRun(Message):
    """Where the micro-batches that are overdue run a second time. On `job/<task>/second-run`.

    It belongs to the same attempt. Of each micro-batch the output that comes first counts.
    """

    task: TaskKey
    attempt: Attempt
    micro_batches: MicroBatches
    """As the first placement numbers them."""
    placed: TaskPlaced
    """A placement of these alone; it numbers them from 0, in their order."""

    @model_validator(mode="after")
    def _places_each(self) -> Self:
        numbers = self.micro_batches
        if list(numbers) != sorted(set(numbers)):
            raise ValueError("the micro-batches must be different and ascending")
        if (self.placed.task, self.placed.attempt) != (self.task, self.attempt):
            raise ValueError("the placement is of another task or attempt")
        if self.placed.micro_batch_count != len(numbers):
            raise ValueError(f"{self.placed.micro_batch_count} are placed of {len(numbers)} micro-batches")
        return self

    def node_of(self, stage: str, micro_batch: int) -> str | None:
        """Return the node that runs a stage on a micro-batch of the first numbering; None if none does."""
        if micro_batch not in self.micro_batches:
            return None
        return self.placed.paths()[self.micro_batches.index(micro_batch)].get(stage)
