"""What a placed task does on a node: computing, and tensors that its link carries."""

from dataclasses import dataclass

from splitplace.messages.application import Application, Fragment
from splitplace.messages.groupings import as_placed
from splitplace.messages.task import TaskPlaced
from splitplace.policies.job import input_bytes


@dataclass(frozen=True, slots=True)
class StageWork:
    """A stage on a node, with its expected computing time for all inputs."""

    node: str
    fragment: Fragment
    work_ms: float
    calls: int | None = None
    """Micro-batches of the task, by which `work_ms` gains already; None: it gains all there is."""
    input_bytes: float = 0.0
    """Its inputs as they cross the links of the broker and the node."""


def stage_work(application: Application, placed: TaskPlaced) -> tuple[StageWork, ...]:
    """Return the work of a published placement. Stages that the variant does not have are ignored.

    Raises:
        GroupingError: the placement does not fit the application.
    """
    grouped, count = as_placed(application, placed), placed.micro_batch_count
    sizes = input_bytes(grouped.variant, grouped.fragments, placed.batch)
    return tuple(
        StageWork(
            stage.node,
            grouped.fragments[stage.stage],
            stage.work_ms,
            count,
            sizes[stage.stage] * share_of(stage.micro_batches, count),
        )
        for stage in placed.stages
        if stage.stage in grouped.fragments
    )


def share_of(micro_batches: tuple[int, ...] | None, count: int) -> float:
    """Return the share of a task's micro-batches that a replica runs; None = all."""
    return 1.0 if micro_batches is None else len(micro_batches) / count
