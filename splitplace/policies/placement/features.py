"""The features of the surrogate: every stage on every node, in figures without a unit.

Times are divided by the task's own computing time on a node of mean speed, so the same weights serve tasks of
milliseconds and of hours. (Divided by the slack, all times of a task that is not urgent would be almost
nothing, and nodes would look alike. DASO gets the slack as a feature of the task.) Nothing here depends on
the placement, so a decision builds it once, whatever the number of steps of its search.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, log

import numpy as np
import numpy.typing as npt

from splitplace.messages.application import INPUT, Fragment, Stage, VariantKind
from splitplace.policies.cluster_columns import ClusterColumns
from splitplace.policies.cost import Flags, Floats
from splitplace.policies.prediction import Job

KINDS: tuple[VariantKind, ...] = ("whole", "layer", "semantic", "compressed")
"""Kinds of variants with an input each: those that the weights were trained on."""

PAIR_FEATURES = 9
STAGE_FEATURES = 8
TASK_FEATURES = 3 + len(KINDS) + 2

_LEAST_SLACK, _MOST_SLACK = 0.05, 100.0
"""Bounds of the slack, in computing times of the job: a deadline that has passed is not infinitely urgent."""

_MOST_TIME = 1000.0
"""Greatest time, in computing times of the job: a node without a link is not infinitely far."""

_LEAST_MS = 1e-3

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class PlacingJob:
    """A job some of whose stages need a node."""

    job: Job
    due_ms: float = inf
    remaining: Mapping[str, float] = field(default_factory=dict)
    """Share of each stage's work that is still to do; 1 for a stage that is not listed."""

    def share(self, stage: str) -> float:
        """Return the share of a stage's work that is still to do."""
        return self.remaining.get(stage, 1.0)

    @cached_property
    def open_stages(self) -> tuple[Stage, ...]:
        """The stages with work still to do."""
        return tuple(stage for stage in self.job.variant.stages if self.share(stage.name) > 0)

    def moved_bytes(self, stage: Stage, bytes_per_image: int) -> float:
        """Return the size of a stage's remaining inputs or outputs, in bytes."""
        return self.share(stage.name) * self.job.batch * bytes_per_image


@dataclass(frozen=True, slots=True)
class Problem:
    """S stages of T tasks to be placed on N nodes: `S_t` and `D_t` of the paper, without `P_t`."""

    task: npt.NDArray[np.intp]
    """[S] Task of each stage. The stages of a task are together, in their order."""
    source: npt.NDArray[np.intp]
    """[S] Stage whose output it reads; -1 if that is not among these."""
    stages: Sequence[Stage]
    features: Array
    """[S, N, PAIR_FEATURES + STAGE_FEATURES]"""
    time: Array
    """[S, N] Fetching, receiving and computing, in the task's unit."""
    waiting: Array
    """[N] Work before all of these stages, in ms."""
    work: Array
    """[S, N] Computing time, in ms."""
    unit: Array
    """[S] The task's unit of time, in ms."""
    solo_ms: Array
    """[T] Computing time on a node of mean speed, in ms."""
    task_features: Array
    """[T, TASK_FEATURES]"""
    memory: Array
    """[S] Memory of the stage's fragment, in bytes."""
    allowed: Flags
    """[S, N] Nodes that have a speed, a link and enough memory for the stage alone."""


def build_problem(
    jobs: Sequence[PlacingJob],
    columns: ClusterColumns,
    now_ms: float,
    waiting_ms: Floats,
    usable: Flags,
    *,
    decision_aware: bool,
) -> Problem:
    """Return the features of all open stages of some jobs on all nodes.

    Args:
        jobs: each with at least one open stage.
        columns: the cluster.
        now_ms: the present moment.
        waiting_ms: [N] work of each node before any of these stages.
        usable: [N] nodes that may be chosen.
        decision_aware: whether the shape of the variant, its kind and accuracy, and the slack are inputs
            (DASO), or not (GOBI). Without them, stages differ by their work and their tensors alone.
    """
    rows = [
        (placing, stage, placing.job.fragments[stage.name])
        for placing in jobs
        for stage in placing.open_stages
    ]
    sizes = np.array([len(placing.open_stages) for placing in jobs])
    starts = np.cumsum(sizes) - sizes
    task = np.repeat(np.arange(len(jobs)), sizes)
    counted = usable if usable.any() else np.ones_like(usable)
    share_of_node = counted / counted.sum()
    free = columns.free_bytes()
    memory = np.array([float(fragment.peak_memory_bytes) for _, _, fragment in rows])
    reserved = np.array([columns.reserved(fragment.sha256) for _, _, fragment in rows])

    work_ms = np.array([_work_ms(columns, *row) for row in rows])
    mean_ms = np.where(np.isfinite(work_ms), work_ms, 0.0) @ share_of_node
    solo_ms = np.maximum(np.add.reduceat(mean_ms, starts), _LEAST_MS)
    due_ms = np.array([placing.due_ms for placing in jobs]) - now_ms
    slack_ms = np.minimum(np.maximum(due_ms, _LEAST_SLACK * solo_ms), _MOST_SLACK * solo_ms)
    unit_ms = solo_ms[task, None]

    # Computing, fetching, receiving, sending, waiting.
    times = np.empty((5, len(rows), len(usable)), dtype=np.float32)
    times[0] = np.minimum(work_ms / unit_ms, _MOST_TIME)
    ready_ms = np.array([columns.fragment_ready_ms(fragment, now_ms) for _, _, fragment in rows])
    times[1] = np.minimum((ready_ms - now_ms) / unit_ms, _MOST_TIME)
    inputs = np.array(
        [[placing.moved_bytes(stage, fragment.input_bytes_per_image)] for placing, stage, fragment in rows]
    )
    times[2] = np.minimum(inputs / unit_ms * columns.byte_ms, _MOST_TIME)
    outputs = np.array(
        [[placing.moved_bytes(stage, fragment.output_bytes_per_image)] for placing, stage, fragment in rows]
    )
    times[3] = np.minimum(outputs / unit_ms * columns.byte_ms, _MOST_TIME)
    times[4] = waiting_ms / unit_ms

    features = np.empty((len(rows), len(usable), PAIR_FEATURES + STAGE_FEATURES), dtype=np.float32)
    features[:, :, :5] = np.log(1 + times).transpose(1, 2, 0)
    features[:, :, 5] = _relative(columns.score, share_of_node)
    features[:, :, 6] = _relative(columns.link, share_of_node)
    features[:, :, 7] = np.minimum(memory[:, None] / np.maximum(free, 1.0), 1.0)
    features[:, :, 8] = reserved
    features[:, :, PAIR_FEATURES] = (mean_ms / solo_ms[task])[:, None]
    stage_features = [
        of_stage for placing in jobs for of_stage in _stage_features(placing, decision_aware=decision_aware)
    ]
    features[:, :, PAIR_FEATURES + 1 :] = np.array(stage_features)[:, None, :]

    urgency = np.log(slack_ms / solo_ms)
    load = np.log1p(waiting_ms.mean() / unit_ms[starts, 0])
    task_features = [
        _task_features(placing, urgency[index], load[index], decision_aware=decision_aware)
        for index, placing in enumerate(jobs)
    ]
    return Problem(
        task=task,
        source=np.concatenate(
            [_sources(placing, start) for placing, start in zip(jobs, starts, strict=True)]
        ),
        stages=[stage for _, stage, _ in rows],
        features=features,
        time=times[:3].sum(axis=0),
        waiting=waiting_ms.astype(np.float32),
        work=times[0] * unit_ms.astype(np.float32),
        unit=unit_ms[:, 0].astype(np.float32),
        solo_ms=solo_ms,
        task_features=np.array(task_features, dtype=np.float32),
        memory=memory,
        allowed=usable & (reserved & columns.sharing | (memory[:, None] <= free)),
    )


def _work_ms(columns: ClusterColumns, placing: PlacingJob, stage: Stage, fragment: Fragment) -> Floats:
    job = placing.job
    reference = job.application.reference_score
    return placing.share(stage.name) * columns.work_ms(fragment, reference, len(job.micro_batches), job.batch)


def _relative(values: Floats, share_of_node: Floats) -> Floats:
    """Return the logarithms of values over their mean; for 0, the logarithm of a hundredth."""
    mean = max(float(values @ share_of_node), 1e-9)
    relative: Floats = np.log(values / mean + 0.01)
    return relative


def _sources(placing: PlacingJob, start: int) -> npt.NDArray[np.intp]:
    places = {stage.name: start + index for index, stage in enumerate(placing.open_stages)}
    return np.array([places.get(stage.source, -1) for stage in placing.open_stages], dtype=np.intp)


def _stage_features(placing: PlacingJob, *, decision_aware: bool) -> list[tuple[float, ...]]:
    """Return the features of each open stage beside its share of the work: its place in the tree.

    The shape of a variant tells the decision. So all but the share that is still to do are 0 unless
    decision-aware.
    """
    job, variant = placing.job, placing.job.variant
    if not decision_aware:
        return [(placing.share(stage.name), *(0.0,) * (STAGE_FEATURES - 2)) for stage in placing.open_stages]
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
            log(job.fragments[stage.name].input_bytes_per_image / job.application.input_bytes_per_image),
        )
        for stage in placing.open_stages
    ]


def _task_features(
    placing: PlacingJob, urgency: float, load: float, *, decision_aware: bool
) -> tuple[float, ...]:
    """Return the features of a task; all but the load are 0 unless decision-aware."""
    variant, crowd = placing.job.variant, float(np.log1p(load))
    if not decision_aware:
        return (0.0, 0.0, crowd, *(0.0,) * (len(KINDS) + 2))
    size = len(variant.stages)
    shape = (log(size), len(variant.sinks) / size)
    return (*shape, crowd, *(float(variant.kind == kind) for kind in KINDS), urgency, variant.accuracy)
