"""What the surrogate sees: every fragment on every host, in figures without a unit.

Times are divided by a time that belongs to the task: GOBI takes its own computing time on a host of mean
speed, DASO its slack. So the same weights serve tasks of milliseconds and of hours. Nothing here depends on
the placement, so one decision builds it once, whatever the number of steps of its search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, log

import numpy as np
import numpy.typing as npt

from messages.application import INPUT, Stage
from policies.cluster_columns import ClusterColumns, Flags, Floats
from policies.prediction import Job

DECISIONS = ("whole", "layer", "semantic", "compressed")
"""First parts of variants' names, with one input each."""

PAIR_FEATURES = 9
FRAGMENT_FEATURES = 8
TASK_FEATURES = 3 + len(DECISIONS) + 2

_LEAST_SLACK = 0.05
"""Of the job's own computing time: a deadline that has passed is not an infinite hurry."""

Array = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class PlacingJob:
    """A job some of whose stages are looking for a host."""

    job: Job
    due_ms: float = inf
    remaining: Mapping[str, float] = field(default_factory=dict)
    """Share of each stage's work that is still to do; all of it where it does not stand here."""

    def share(self, stage: str) -> float:
        """What remains of a stage."""
        return self.remaining.get(stage, 1.0)

    @property
    def open_stages(self) -> tuple[Stage, ...]:
        """Those that still have something to do."""
        return tuple(stage for stage in self.job.variant.stages if self.share(stage.name) > 0)


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
    parts = [_Part(one, columns, now_ms, waiting_ms, usable, decision_aware=decision_aware) for one in jobs]
    sizes = [len(part.stages) for part in parts]
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.intp)
    sources = [
        np.where(part.source < 0, -1, part.source + start) for part, start in zip(parts, starts, strict=True)
    ]
    return Problem(
        task=np.repeat(np.arange(len(parts)), sizes),
        source=np.concatenate(sources),
        stages=[stage for part in parts for stage in part.stages],
        features=np.concatenate([part.features for part in parts]),
        time=np.concatenate([part.time for part in parts]),
        waiting=waiting_ms.astype(np.float32),
        work=np.concatenate([part.work for part in parts]),
        unit=np.concatenate(
            [np.full(size, part.unit_ms, np.float32) for part, size in zip(parts, sizes, strict=True)]
        ),
        about=np.array([part.about for part in parts], dtype=np.float32),
        memory=np.concatenate([part.memory for part in parts]),
        allowed=np.concatenate([part.allowed for part in parts]),
    )


class _Part:
    """The rows of one job."""

    def __init__(
        self,
        placing: PlacingJob,
        columns: ClusterColumns,
        now_ms: float,
        waiting_ms: Floats,
        usable: Flags,
        *,
        decision_aware: bool,
    ) -> None:
        job, stages = placing.job, placing.open_stages
        hosts = len(columns.names)
        fragments = [job.fragments[stage.name] for stage in stages]
        shares = np.array([placing.share(stage.name) for stage in stages])[:, None]
        calls, reference = len(job.micro_batches), job.application.reference_score
        work = shares * np.stack([columns.work_ms(one, reference, calls, job.batch) for one in fragments])
        fetch = np.stack([columns.fragment_ready_ms(one, now_ms) - now_ms for one in fragments])
        with np.errstate(divide="ignore"):
            byte_ms = 1 / (1000 * columns.link)
        received = shares * np.array([[job.batch * one.input.bytes_per_image] for one in fragments]) * byte_ms
        sent = shares * np.array([[job.batch * one.output.bytes_per_image] for one in fragments]) * byte_ms
        self.memory = np.array([float(one.peak_memory_bytes) for one in fragments])
        reserved = np.stack([columns.reserved(one.sha256) for one in fragments])
        free = columns.free_bytes()
        self.allowed = usable & (reserved | (self.memory[:, None] <= free))
        self.stages = stages
        places = {stage.name: index for index, stage in enumerate(stages)}
        self.source = np.array([places.get(stage.source, -1) for stage in stages], dtype=np.intp)

        finite = usable if usable.any() else np.ones(hosts, dtype=bool)
        mean_work = np.where(np.isfinite(work), work, 0.0)[:, finite].mean(axis=1)
        own_ms = max(float(mean_work.sum()), 1e-3)
        slack_ms = max(min(placing.due_ms - now_ms, 100 * own_ms), _LEAST_SLACK * own_ms)
        self.unit_ms = slack_ms if decision_aware else own_ms
        self.work = _bounded(work, 1e3 * own_ms)
        rest = _bounded(received + fetch, 1e3 * own_ms)
        self.time = (self.work + rest) / np.float32(self.unit_ms)
        mean_score = max(float(columns.score[finite].mean()), 1e-9)
        mean_link = max(float(columns.link[finite].mean()), 1e-9)
        pair = np.empty((len(stages), hosts, PAIR_FEATURES), dtype=np.float32)
        for place, values in enumerate(
            (
                self.work / self.unit_ms,
                _bounded(fetch, 1e3 * own_ms) / self.unit_ms,
                _bounded(received, 1e3 * own_ms) / self.unit_ms,
                _bounded(sent, 1e3 * own_ms) / self.unit_ms,
                waiting_ms / self.unit_ms,
            )
        ):
            pair[:, :, place] = np.log1p(values)
        pair[:, :, 5] = np.log((columns.score + 0.01 * mean_score) / mean_score)
        pair[:, :, 6] = np.log((columns.link + 0.01 * mean_link) / mean_link)
        pair[:, :, 7] = np.clip(self.memory[:, None] / np.maximum(free, 1.0), 0, 1)
        pair[:, :, 8] = reserved
        own = np.array(
            [
                _about_fragment(job, stage, mean_work[place] / own_ms, placing.share(stage.name))
                for place, stage in enumerate(stages)
            ],
            dtype=np.float32,
        )
        shape = (len(stages), hosts, FRAGMENT_FEATURES)
        self.features = np.concatenate((pair, np.broadcast_to(own[:, None, :], shape)), axis=2)
        self.about = _about_task(
            placing,
            log(slack_ms / own_ms),
            float(waiting_ms.mean()) / self.unit_ms,
            decision_aware=decision_aware,
        )


def _about_fragment(job: Job, stage: Stage, share_of_work: float, remaining: float) -> tuple[float, ...]:
    variant = job.variant
    depths: dict[str, int] = {INPUT: 0}
    for one in variant.stages:
        depths[one.name] = depths[one.source] + 1
    deepest = max(depths.values())
    return (
        share_of_work,
        remaining,
        depths[stage.name] / deepest,
        1 / deepest,
        len(variant.children(stage.source)) / len(variant.stages),
        float(stage.source == INPUT),
        float(stage.name in job.sinks),
        log(job.fragments[stage.name].input.bytes_per_image / job.application.input.bytes_per_image),
    )


def _about_task(
    placing: PlacingJob, urgency: float, load: float, *, decision_aware: bool
) -> tuple[float, ...]:
    """What is said of the whole task; of the decision only where that is known."""
    variant = placing.job.variant
    size = len(variant.stages)
    common = (log(size), len(variant.sinks) / size, float(np.log1p(load)))
    if not decision_aware:
        return (*common, *(0.0,) * (len(DECISIONS) + 2))
    kind = variant.name.split("-", 1)[0]
    return (*common, *(float(kind == one) for one in DECISIONS), urgency, variant.accuracy)


def _bounded(values: Floats, largest: float) -> npt.NDArray[np.float32]:
    return np.minimum(values, largest).astype(np.float32)
