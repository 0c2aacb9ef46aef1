"""Where the stages of a task stand, as messages name it."""

from typing import Annotated

from pydantic import Field

from splitplace.messages.base import Count, Milliseconds, Name, Part
from splitplace.messages.limits import MAX_BATCH, MAX_DEALT, MAX_FORESEEN
from splitplace.messages.pieces import PieceRun

BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH)]


class StagePlacement(Part):
    """Which node runs a stage, or its share of it, and the computing time the placer expects that to take."""

    stage: Name
    node: Name
    work_ms: Milliseconds
    micro_batches: (
        Annotated[
            tuple[Annotated[int, Field(ge=0, lt=MAX_DEALT)], ...], Field(min_length=1, max_length=MAX_DEALT)
        ]
        | None
    ) = None
    """The micro-batches that this node runs, where the stage has replicas; None = all."""
    run: PieceRun | None = None
    """The pieces of the stage, where they were grouped for this task; None = as the variant says."""


class ForeseenPlacement(Part):
    """The placement with which the splitter predicted the chosen variant, for the placer."""

    cluster: Count
    """Number of the cluster state on which it was found."""
    micro_batch: BatchSize
    stages: Annotated[tuple[StagePlacement, ...], Field(min_length=1, max_length=MAX_FORESEEN)]
    predicted_ms: Milliseconds
    """As predicted by the cost model, without a correction."""
