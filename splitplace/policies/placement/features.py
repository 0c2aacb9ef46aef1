"""What the surrogate sees: every fragment on every host, in figures without a unit.

Times are divided by the task's own computing time on a host of mean speed, so the same weights serve tasks of
milliseconds and of hours. (Divided by its slack, all times of a task that is not urgent are almost nothing,
and hosts can no longer be told apart. DASO knows the slack as a figure of the task.) Nothing here depends on
the placement, so one decision builds it once, whatever the number of steps of its search.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, log

import numpy as np
import numpy.typing as npt

from splitplace.messages.application import INPUT, Fragment, Stage, TensorSpec, VariantKind
from splitplace.policies.cluster_columns import ClusterColumns
from splitplace.policies.cost import Flags, Floats
from splitplace.policies.prediction import Job

KINDS: tuple[VariantKind, ...] = ("whole", "layer", "semantic", "compressed")
"""Kinds of variants with an input each: those that the weights were trained on."""

PAIR_FEATURES = 9
FRAGMENT_FEATURES = 8
TASK_FEATURES = 3 + len(KINDS) + 2

_LEAST_SLACK, _MOST_SLACK = 0.05, 100.0
"""Of the job's own computing time: a deadline that has passed is not an infinite hurry."""

_MOST_TIME = 1000.0
"""Of the job's own computing time: a host without a link is not infinitely far."""

_LEAST_MS = 1e-3

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class PlacingJob:
    """A job some of whose stages are looking for a host."""

    job: Job
    due_ms: float = inf
    remaining: Mapping[str, float] = field(default_factory=dict)
    """Share of each stage's work that is still to do; all of it where it does not stand here."""

    def share(self, stage: str) -> float:
        """What remains of a stage."""
        return self.remaining.get(stage, 1.0)

    @cached_property
    def open_stages(self) -> tuple[Stage, ...]:
        """Those that still have something to do."""
        return tuple(stage for stage in self.job.variant.stages if self.share(stage.name) > 0)

    def moved_bytes(self, stage: Stage, tensor: TensorSpec) -> float:
        """Size of what remains of a stage's inputs or outputs."""
        return self.share(stage.name) * self.job.batch * tensor.bytes_per_image


@dataclass(frozen=True, slots=True)
class Problem:
    """F fragments of T tasks to be placed on H hosts: `S_t` and `D_t` of the paper, without `P_t`."""

    task: npt.NDArray[np.intp]
    """[F] which task each fragment belongs to; fragments of a task stand together, in their order."""
    source: npt.NDArray[np.intp]
    """[F] the fragment whose output it reads; -1 where that is not among them."""
    stages: Sequence[Stage]
    features: Array
    """[F, H, PAIR_FEATURES + FRAGMENT_FEATURES]"""
    time: Array
    """[F, H] fetching, receiving and computing, in the task's unit."""
    waiting: Array
    """[H] ms of work that stands before all of these fragments."""
    work: Array
    """[F, H] ms of computing."""
    unit: Array
    """[F] ms: the task's unit of time."""
    own: Array
    """[T] ms of computing on a host of mean speed."""
    about: Array
    """[T, TASK_FEATURES]"""
    memory: Array
    """[F] bytes."""
    allowed: Flags
    """[F, H] hosts that have a speed and a link and enough memory, were the fragment alone there."""


def problem(
    jobs: Sequence[PlacingJob],
    columns: ClusterColumns,
    now_ms: float,
    waiting_ms: Floats,
    usable: Flags,
    *,
    decision_aware: bool,
) -> Problem:
    """The features of all open stages of some jobs on all nodes.

    Args:
        jobs: each with at least one open stage.
        columns: the cluster.
        now_ms: the present moment.
        waiting_ms: [H] what each node has to do before any of this.
        usable: [H] nodes that may be chosen.
        decision_aware: whether split decision, accuracy and slack are inputs (DASO), or not (GOBI).
    """
    rows = [(one, stage, one.job.fragments[stage.name]) for one in jobs for stage in one.open_stages]
    sizes = np.array([len(one.open_stages) for one in jobs])
    starts = np.cumsum(sizes) - sizes
    task = np.repeat(np.arange(len(jobs)), sizes)
    counted = usable if usable.any() else np.ones_like(usable)
    share_of_host = counted / counted.sum()
    free = columns.free_bytes()
    memory = np.array([float(fragment.peak_memory_bytes) for _, _, fragment in rows])
    reserved = np.array([columns.reserved(fragment.sha256) for _, _, fragment in rows])

    work_ms = np.array([_work_ms(columns, *row) for row in rows])
    mean_ms = np.where(np.isfinite(work_ms), work_ms, 0.0) @ share_of_host
    own_ms = np.maximum(np.add.reduceat(mean_ms, starts), _LEAST_MS)
    due_ms = np.array([one.due_ms for one in jobs]) - now_ms
    slack_ms = np.minimum(np.maximum(due_ms, _LEAST_SLACK * own_ms), _MOST_SLACK * own_ms)
    unit_ms = own_ms[task, None]

    # Computing, fetching, receiving, sending, waiting.
    times = np.empty((5, len(rows), len(usable)), dtype=np.float32)
    times[0] = np.minimum(work_ms / unit_ms, _MOST_TIME)
    ready_ms = np.array([columns.fragment_ready_ms(fragment, now_ms) for _, _, fragment in rows])
    times[1] = np.minimum((ready_ms - now_ms) / unit_ms, _MOST_TIME)
    inputs = np.array([[one.moved_bytes(stage, fragment.input)] for one, stage, fragment in rows])
    times[2] = np.minimum(inputs / unit_ms * columns.byte_ms, _MOST_TIME)
    outputs = np.array([[one.moved_bytes(stage, fragment.output)] for one, stage, fragment in rows])
    times[3] = np.minimum(outputs / unit_ms * columns.byte_ms, _MOST_TIME)
    times[4] = waiting_ms / unit_ms

    features = np.empty((len(rows), len(usable), PAIR_FEATURES + FRAGMENT_FEATURES), dtype=np.float32)
    features[:, :, :5] = np.log(1 + times).transpose(1, 2, 0)
    features[:, :, 5] = _relative(columns.score, share_of_host)
    features[:, :, 6] = _relative(columns.link, share_of_host)
    features[:, :, 7] = np.minimum(memory[:, None] / np.maximum(free, 1.0), 1.0)
    features[:, :, 8] = reserved
    features[:, :, PAIR_FEATURES] = (mean_ms / own_ms[task])[:, None]
    about_fragments = [about for one in jobs for about in _about_fragments(one)]
    features[:, :, PAIR_FEATURES + 1 :] = np.array(about_fragments)[:, None, :]

    urgency = np.log(slack_ms / own_ms)
    load = np.log1p(waiting_ms.mean() / unit_ms[starts, 0])
    about = [
        _about_task(one, urgency[index], load[index], decision_aware=decision_aware)
        for index, one in enumerate(jobs)
    ]
    return Problem(
        task=task,
        source=np.concatenate([_sources(one, start) for one, start in zip(jobs, starts, strict=True)]),
        stages=[stage for _, stage, _ in rows],
        features=features,
        time=times[:3].sum(axis=0),
        waiting=waiting_ms.astype(np.float32),
        work=times[0] * unit_ms.astype(np.float32),
        unit=unit_ms[:, 0].astype(np.float32),
        own=own_ms,
        about=np.array(about, dtype=np.float32),
        memory=memory,
        allowed=usable & (reserved & ~columns.exclusive | (memory[:, None] <= free)),
    )


def _work_ms(columns: ClusterColumns, placing: PlacingJob, stage: Stage, fragment: Fragment) -> Floats:
    job = placing.job
    reference = job.application.reference_score
    return placing.share(stage.name) * columns.work_ms(fragment, reference, len(job.micro_batches), job.batch)


def _relative(values: Floats, share_of_host: Floats) -> Floats:
    """Logarithms of values over their mean; of nothing, that of a hundredth."""
    mean = max(float(values @ share_of_host), 1e-9)
    relative: Floats = np.log(values / mean + 0.01)
    return relative


def _sources(placing: PlacingJob, start: int) -> npt.NDArray[np.intp]:
    places = {stage.name: start + index for index, stage in enumerate(placing.open_stages)}
    return np.array([places.get(stage.source, -1) for stage in placing.open_stages], dtype=np.intp)


def _about_fragments(placing: PlacingJob) -> list[tuple[float, ...]]:
    """What is said of each open fragment beside its share of the job's work: where it stands in its tree."""
    job, variant = placing.job, placing.job.variant
    depths: dict[str, int] = {INPUT: 0}
    for stage in variant.stages:
        depths[stage.name] = depths[stage.source] + 1
    deepest = max(depths.values())
    siblings = Counter(stage.source for stage in variant.stages)
    return [
        (
            placing.share(stage.name),
            depths[stage.name] / deepest,
            1 / deepest,
            siblings[stage.source] / len(variant.stages),
            float(stage.source == INPUT),
            float(stage.name in job.sinks),
            log(job.fragments[stage.name].input.bytes_per_image / job.application.input.bytes_per_image),
        )
        for stage in placing.open_stages
    ]


def _about_task(
    placing: PlacingJob, urgency: float, load: float, *, decision_aware: bool
) -> tuple[float, ...]:
    """What is said of the whole task; of the decision only where that is known."""
    variant = placing.job.variant
    size = len(variant.stages)
    common = (log(size), len(variant.sinks) / size, float(np.log1p(load)))
    if not decision_aware:
        return (*common, *(0.0,) * (len(KINDS) + 2))
    return (*common, *(float(variant.kind == kind) for kind in KINDS), urgency, variant.accuracy)
