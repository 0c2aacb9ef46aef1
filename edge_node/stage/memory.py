"""What a stage takes of a node's memory: measured, and foreseen before that. Pure."""

from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from splitplace.messages.base import Bytes, Milliseconds, Part
from splitplace.messages.limits import MAX_BATCH, MEBIBYTE
from splitplace.policies.memory import reserved_bytes

_FORM = 1.1
_FORM_BYTES = 1 * MEBIBYTE


class RunMemory(Part):
    """What micro-batches of one size take."""

    micro_batch: Annotated[int, Field(ge=1, le=MAX_BATCH)]
    private_bytes: Bytes
    """Private memory of the loaded stage that runs such micro-batches, with their inputs and outputs."""
    milliseconds: Milliseconds
    """Time of a run in one thread, in a process of its own."""


class StageMemory(Part):
    """What a prepared stage takes on this device: measured in a process of its own."""

    loading_bytes: Bytes
    """Peak of private memory while it is mapped."""
    loaded_bytes: Bytes
    """Private memory once it is mapped, before it has run."""
    runs: Annotated[tuple[RunMemory, ...], Field(min_length=1, max_length=MAX_BATCH)]
    """By size of micro-batch, ascending."""

    def covers(self, micro_batches: Collection[int]) -> bool:
        """Whether a run of each of these sizes, or of a larger one, was measured."""
        return max(micro_batches, default=1) <= self.runs[-1].micro_batch

    def activation_bytes(self, micro_batch: int) -> int:
        """Return the memory to reserve for a further run at the same time."""
        return max(0, self.private_bytes(micro_batch) - self.loaded_bytes)

    def private_bytes(self, micro_batch: int) -> int:
        """Return the memory to reserve for a stage that runs micro-batches of up to this size.

        Sizes beyond those measured count in proportion.
        """
        for run in self.runs:
            if run.micro_batch >= micro_batch:
                measured: float = run.private_bytes
                break
        else:
            last = self.runs[-1]
            measured = last.private_bytes * micro_batch / last.micro_batch
        return reserved_bytes(max(measured, self.loading_bytes))


def form_bytes(weight_bytes: int) -> int:
    """Return the size that the prepared form of a stage is expected to have at least."""
    return int(_FORM * weight_bytes) + _FORM_BYTES
