"""A second run of micro-batches whose outputs are overdue or lost: who notices, and where they run."""

from functools import cached_property
from typing import Annotated, Self

from pydantic import Field, model_validator

from splitplace.messages.base import Attempt, Message, Name, Part
from splitplace.messages.limits import MAX_DEALT, MAX_SECOND_PARTS, MAX_STAGES
from splitplace.messages.names import TaskKey
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import TaskPlaced

MicroBatches = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=MAX_DEALT)], ...], Field(min_length=1, max_length=MAX_DEALT)
]
"""Numbers of micro-batches, ascending."""


class OverdueOutputs(Part):
    """What is overdue of a task, or of one of its branches."""

    branch: Name | None = None
    """The last stage, where the variant has several."""
    micro_batches: MicroBatches


class LostReplica(Message):
    """A running attempt has lost a node that shares its stages. On `job/<task>/lost-replica`."""

    task: TaskKey
    attempt: Attempt
    node: Name


class TaskLagging(Message):
    """These outputs are overdue, or will not come. On `job/<task>/lagging`."""

    task: TaskKey
    attempt: Attempt
    outputs: Annotated[tuple[OverdueOutputs, ...], Field(min_length=1, max_length=MAX_STAGES)]
    lost: Name | None = None
    """The replica that was lost before it gave them; None = they are overdue."""


class SecondPart(Part):
    """Where some micro-batches run a second time."""

    micro_batches: MicroBatches
    """As the first placement numbers them."""
    placed: TaskPlaced
    """A placement of these alone; it numbers them from 0, in their order. Of a variant with branches, it has
    the stages of those that run again."""

    @model_validator(mode="after")
    def _places_each(self) -> Self:
        numbers = self.micro_batches
        if list(numbers) != sorted(set(numbers)):
            raise ValueError("the micro-batches must be different and ascending")
        if self.placed.micro_batch_count != len(numbers):
            raise ValueError(f"{self.placed.micro_batch_count} are placed of {len(numbers)} micro-batches")
        return self

    def node_of(self, stage: str, micro_batch: int) -> str | None:
        """Return the node that runs a stage on a micro-batch of the first numbering; None if none does."""
        if micro_batch not in self.micro_batches:
            return None
        return self.placed.paths()[self.micro_batches.index(micro_batch)].get(stage)


class SecondRun(Message):
    """Where outputs that are overdue or lost are computed a second time. On `job/<task>/second-run`.

    It belongs to the same attempt. Of each output the one that comes first counts.
    """

    task: TaskKey
    attempt: Attempt
    parts: Annotated[tuple[SecondPart, ...], Field(min_length=1, max_length=MAX_SECOND_PARTS)]
    """One, or one for the branches of each root stage."""
    lost: Name | None = None
    """The replica that these outputs were to come from; None = all that was missing has a second run."""

    @model_validator(mode="after")
    def _is_of_one_attempt(self) -> Self:
        if any((part.placed.task, part.placed.attempt) != (self.task, self.attempt) for part in self.parts):
            raise ValueError("a placement is of another task or attempt")
        names = [name for part in self.parts for name in {share.stage for share in part.placed.stages}]
        if len(set(names)) < len(names):
            raise ValueError("two parts have a stage in common")
        return self

    @cached_property
    def micro_batches(self) -> tuple[int, ...]:
        """The micro-batches of all parts, ascending."""
        return tuple(sorted({number for part in self.parts for number in part.micro_batches}))

    @property
    def stages(self) -> tuple[StagePlacement, ...]:
        """The stages of all parts, on their nodes."""
        return tuple(share for part in self.parts for share in part.placed.stages)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes that take part, each once."""
        return tuple(dict.fromkeys(share.node for share in self.stages))
