"""What a placed task does on a node: computing, and tensors that its link carries."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitplace.messages.application import Application, Fragment
from splitplace.messages.groupings import as_placed
from splitplace.messages.task import TaskPlaced
from splitplace.policies.job import input_bytes, micro_batches


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
    images = micro_batches(placed.batch, placed.micro_batch)
    sizes = input_bytes(grouped.variant, grouped.fragments, placed.batch)
    return tuple(
        StageWork(
            stage.node,
            grouped.fragments[stage.stage],
            stage.work_ms,
            count,
            sizes[stage.stage] * share_of(stage.micro_batches, images),
        )
        for stage in placed.stages
        if stage.stage in grouped.fragments
    )


def share_of(numbers: tuple[int, ...] | None, images: Sequence[int]) -> float:
    """Return the share of a batch that a replica runs.

    Args:
        numbers: its micro-batches; None = all.
        images: images in each micro-batch of the task.
    """
    return 1.0 if numbers is None else sum([images[number] for number in numbers]) / sum(images)
