"""A chain as it was planned: what each stage costs, and how far that is from the best that could be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedStage:
    """One fragment of a chain, on the node that it is planned for."""

    first_segment: int
    last_segment: int
    """Both inclusive: the pieces between neighbouring cut points that it is made of."""
    compute_ms: float
    """Of one image."""
    send_ms: float
    """Of the output for one image; 0 of the last stage."""
    sent_bytes_per_image: float
    """Estimated, on the wire; 0 of the last stage."""
    flops_per_image: int
    weight_bytes: int
    peak_memory_bytes: int
    """Weights, and the most activations that exist at the same time for a micro-batch."""
    output: str
    """Name of the tensor that leaves it."""


@dataclass(frozen=True)
class CutPlan:
    """A chain that is balanced for certain nodes."""

    stages: tuple[PlannedStage, ...]
    micro_batch: int
    pace_ms: float
    """The slowest part of the pipeline, computing or sending, for one image."""
    least_pace_ms: float
    """That of the fastest chain of so many stages. One that is nearly as fast is taken if it sends less."""
    ideal_pace_ms: float
    """What a network would need that could be divided anywhere among these nodes, with nothing to send."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """What crosses the cuts, in order."""
        return tuple(stage.output for stage in self.stages[:-1])
