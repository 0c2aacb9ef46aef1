"""Stages and nodes together: group the pieces of a variant's chain for a few candidate nodes. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from statistics import median
from typing import Self

import numpy as np

from splitplace.messages.application import Application, Fragment, Variant
from splitplace.messages.groupings import GroupedVariant, cut_places, derived_fragment, free_chain, grouped
from splitplace.messages.pieces import NamedChain, PieceRun, bundle_bytes
from splitplace.policies.cluster import ClusterView
from splitplace.policies.cost import Flags, Floats
from splitplace.policies.memory import described_bytes, least_preparing_bytes
from splitplace.policies.placement import few_nodes
from splitplace.policies.placement.board import Board
from splitplace.policies.placement.grouping import MAX_NODES, NodeColumns, PieceCosts, Source, group
from splitplace.policies.placement.interface import PlacementRequest
from splitplace.policies.prediction import Job, StageSchedule

USED_FOR_MS = 1000.0
"""How long a grouping is used before a better one is searched."""
MAX_FOUND = 1024
"""Groupings that are kept."""
CANDIDATES = 10
"""Nodes that are compared, if their memory is enough."""
OF_A_KIND = 3
"""Candidates of equal nodes before those of other kinds have their turn."""
LOADING_ONCE = 0.001
"""How much loading counts for a grouping that lasts: between two that are as fast, the sooner loaded."""
PATIENCE = 0.25
"""Share of its slack that a task may wait for one."""
UNKNOWN = 64 * "0"
"""Hash of a fragment that no node has."""
_LEAST_SCORE = 1e-9
_SCORES_IN_A_KIND = 1.15
"""Equal nodes have scores within this ratio."""


@dataclass(frozen=True, slots=True)
class RunTable:
    """Every stage that a chain allows: runs of the U units between the places at which it may be cut."""

    places: tuple[int, ...]
    """[U + 1] Numbers of pieces: the first, those at which a stage may begin, and the end."""
    runs: Mapping[str, tuple[int, int, Fragment]]
    """First unit, last unit and fragment of each run, by the fragment's hash."""
    units: tuple[Fragment, ...]
    """[U] The units as fragments."""
    file_bytes: Floats
    """[U, U] Size of a run's files, by its first and its last unit."""
    memory_bytes: Floats
    """[U, U] Memory that a run needs where it is not loaded."""
    preparing_bytes: Floats
    """[U, U] Memory that preparing a run takes at least."""
    crossing_bytes: Floats
    """[U + 1] What crosses at each place, for an image."""
    output_ratios: Floats
    """[U + 1] Share of it that is left when nodes compress it."""
    _grouped: dict[tuple[str, tuple[int, ...]], GroupedVariant] = field(default_factory=dict)
    """Groupings that were asked for, by variant and cuts."""

    def grouped(self, application: Application, variant: Variant, cuts: tuple[int, ...]) -> GroupedVariant:
        """Return a variant of the table's application with stages that begin at the given pieces."""
        found = self._grouped.get((variant.name, cuts))
        if found is None:
            if len(self._grouped) >= MAX_FOUND:
                self._grouped.clear()
            found = self._grouped[variant.name, cuts] = grouped(application, variant, cuts)
        return found

    @classmethod
    def of(cls, application: Application, named: NamedChain) -> Self:
        """Derive all runs of a chain: a few hundred hashes for a large network."""
        places = (0, *cut_places(application, named), len(named.chain.pieces))
        units = range(len(places) - 1)
        runs = {}
        for first in units:
            totals = tuple(named.totals_from(places[first]))
            for last in units[first:]:
                run = PieceRun(chain=named.name, first=places[first], end=places[last + 1])
                fragment = derived_fragment(application, run, totals[run.end - run.first - 1])
                runs[fragment.sha256] = first, last, fragment
        by_run = {(first, last): fragment for first, last, fragment in runs.values()}
        bundles = [named.chain.bundles[place] for place in places]
        return cls(
            places,
            runs,
            tuple(by_run[unit, unit] for unit in units),
            _matrix(by_run, lambda fragment: fragment.file_bytes),
            _matrix(by_run, described_bytes),
            _matrix(by_run, least_preparing_bytes),
            np.array([bundle_bytes(bundle) for bundle in bundles], float),
            np.array([1.0, *(named.costs[place - 1].output_ratio for place in places[1:-1]), 1.0]),
        )


def _matrix(runs: Mapping[tuple[int, int], Fragment], figure: Callable[[Fragment], float]) -> Floats:
    count = 1 + max(last for _, last in runs)
    values = np.zeros((count, count))
    for run, fragment in runs.items():
        values[run] = figure(fragment)
    return values


@dataclass(frozen=True, slots=True)
class _Found:
    """The groupings that were the best when they were searched."""

    application: Application
    groupings: tuple[GroupedVariant, ...]
    """For tasks that can wait, and for those that cannot; only one where nothing needs to be loaded."""
    found_ms: float
    until_ms: float


class Regrouper:
    """Finds groupings, and keeps the tables of runs of the applications it has seen.

    The search takes some ms. What makes another grouping better (what is loaded, what is measured) is
    reported once a second, so each grouping is used for a while, with the nodes that suit each task.
    """

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], tuple[Application, RunTable]] = {}
        self._found: dict[tuple[str, str, int], _Found] = {}
        """The last grouping by application, variant and number of inputs."""

    def schedule(
        self, request: PlacementRequest, cluster: ClusterView, now_ms: float, usable: Flags
    ) -> StageSchedule | None:
        """Return the schedule of the best grouping; None if the stages are fixed, or none fits the memory."""
        job = request.job
        application = job.application
        named = free_chain(application, job.variant)
        if named is None or job.grouped is not None:
            return None
        key = application.name, job.variant.name, job.batch
        last = self._found.get(key)
        if last is not None and last.application is application and last.found_ms <= now_ms < last.until_ms:
            again = (_on_best_nodes(request, known, cluster, now_ms, usable) for known in last.groupings)
            schedule = _chosen(again)
            if schedule is not None:
                return schedule
        found = self._search(request, cluster, now_ms, usable, self._table(application, named))
        schedule = _chosen(found)
        if schedule is None:
            return None
        groupings = tuple(each.job.grouped for each in found if each.job.grouped is not None)
        self._found[key] = _Found(application, groupings, now_ms, now_ms + USED_FOR_MS)
        if len(self._found) > MAX_FOUND:
            del self._found[next(iter(self._found))]
        return schedule

    def units(self, job: Job) -> tuple[Fragment, ...]:
        """Return the smallest stages that the chain of a job's variant allows; none if they are fixed."""
        named = free_chain(job.application, job.variant)
        return () if named is None or job.grouped is not None else self._table(job.application, named).units

    @staticmethod
    def _search(
        request: PlacementRequest, cluster: ClusterView, now_ms: float, usable: Flags, table: RunTable
    ) -> list[StageSchedule]:
        """Return the schedule for a task that can wait for loading, if there is one, and the quickest."""
        ranked = _candidates(table, request, cluster, now_ms, usable)
        options = _Options(table, request, cluster, now_ms, ranked[:CANDIDATES])
        quickest = options.best()
        if quickest is None and len(ranked) > CANDIDATES:  # the memory of a few is not enough
            options = _Options(table, request, cluster, now_ms, ranked)
            quickest = options.best()
        if quickest is None:
            return []
        if not isfinite(request.due_ms) or not loads(quickest):
            return [quickest]
        # Many small stages on many nodes are loaded soonest, and stay slow for all tasks that follow.
        lasting = options.best(loading=LOADING_ONCE)
        return [quickest] if lasting is None else [lasting, quickest]

    def _table(self, application: Application, named: NamedChain) -> RunTable:
        key = application.name, named.name
        known = self._tables.get(key)
        if known is None or known[0] is not application:
            known = self._tables[key] = application, RunTable.of(application, named)
        return known[1]


class _Options:
    """All groupings of a task's chain on some chosen nodes."""

    def __init__(
        self,
        table: RunTable,
        request: PlacementRequest,
        cluster: ClusterView,
        now_ms: float,
        chosen: Sequence[int],
    ) -> None:
        columns, images = cluster.columns, request.job.micro_batch
        self._table, self._request, self._cluster, self._now_ms = table, request, cluster, now_ms
        self._names = [columns.names[index] for index in chosen]
        speeds = [_speeds(table, request, cluster, name) for name in self._names]
        load_ms, needed_bytes = _holdings(table, cluster, now_ms, self._names)
        left = 1 - (1 - table.output_ratios) * columns.compress[chosen].mean()
        self._pieces = PieceCosts(
            work_ms=images * np.array([image_ms for _, image_ms in speeds]),
            call_ms=np.array([call_ms for call_ms, _ in speeds]),
            load_ms=load_ms,
            needed_bytes=needed_bytes,
            crossing_bytes=images * left * table.crossing_bytes,
        )
        size = request.job.carried_bytes  # of the manifest's stages: those to come are not known yet
        broker_byte_ms = cluster.broker_byte_ms(size, now_ms)
        self._nodes = NodeColumns(
            ready_ms=columns.ready_ms(now_ms, request.due_ms)[chosen],
            free_bytes=columns.free_bytes()[chosen],
            byte_ms=np.maximum(columns.byte_ms[chosen], broker_byte_ms),
            up_byte_ms=np.maximum(columns.up_byte_ms[chosen], broker_byte_ms),
            latency_ms=columns.latency_ms[chosen],
            hop_ms=cluster.hop_ms,
        )

    def best(self, *, loading: float = 1.0) -> StageSchedule | None:
        """Return the one that ends first; None if none fits. Loading counts `loading` times."""
        request, job = self._request, self._request.job
        found = group(
            replace(self._pieces, load_ms=loading * self._pieces.load_ms),
            self._nodes,
            len(job.micro_batches),
            Source(request.start_ms, request.start_ms),
            self._now_ms,
            max_stages=job.variant.most_stages,
        )
        if found is None:
            return None
        cuts = tuple([self._table.places[stage.first_piece] for stage in found.stages[1:]])
        again = job.regrouped(self._table.grouped(job.application, job.variant, cuts))
        schedule = StageSchedule(self._cluster, again, self._now_ms, request.start_ms, request.due_ms)
        for stage, planned in zip(again.variant.stages, found.stages, strict=True):
            schedule.put(stage, schedule.offer(stage, self._names[planned.node]))
        return schedule


def loads(schedule: StageSchedule) -> bool:
    """Whether a node must load a stage first."""
    fragments = schedule.job.fragments
    return not all(
        schedule.cluster.is_loaded(offer.node, fragments[stage].sha256)
        for stage, offer in schedule.offers.items()
    )


def _chosen(schedules: Iterable[StageSchedule | None]) -> StageSchedule | None:
    """Return the first for which the task can wait, else the last; None if there are none."""
    last = None
    for schedule in schedules:
        if schedule is not None:
            last = schedule
            if can_wait(schedule):
                break
    return last


def can_wait(schedule: StageSchedule) -> bool:
    """Whether the task has time for a grouping that must be loaded first; not without a deadline."""
    end_ms = max(offer.end_ms for offer in schedule.offers.values())
    slack_ms = schedule.due_ms - schedule.now_ms
    return isfinite(slack_ms) and end_ms - schedule.now_ms <= PATIENCE * slack_ms


def _on_best_nodes(
    request: PlacementRequest, known: GroupedVariant, cluster: ClusterView, now_ms: float, usable: Flags
) -> StageSchedule | None:
    """Return a known grouping with each stage where it ends first; None if a stage fits nowhere."""
    schedule = StageSchedule(cluster, request.job.regrouped(known), now_ms, request.start_ms, request.due_ms)
    names = cluster.columns.chosen(usable)
    if len(names) <= few_nodes.FEW_NODES:
        return schedule if few_nodes.put_where_first(schedule, names) is None else None
    return schedule if Board(schedule, usable).put_all() is None else None


def _candidates(
    table: RunTable, request: PlacementRequest, cluster: ClusterView, now_ms: float, usable: Flags
) -> list[int]:
    """Return the nodes that may be compared, the best first, at most `MAX_NODES`.

    The first few of every kind come before further ones. Of a kind, those that hold a run of the chain come
    first, then those that are free first.
    """
    columns = cluster.columns
    ready_ms = columns.ready_ms(now_ms, request.due_ms)
    holds = np.array([_holds(table, cluster, name) for name in columns.names])
    image_ms = sum(unit.milliseconds_per_image for unit in table.units)
    soonest_ms = ready_ms + image_ms / np.maximum(columns.score, _LEAST_SCORE)
    order = np.flatnonzero(usable)
    order = order[np.lexsort((columns.rank[order], soonest_ms[order], ~holds[order]))]
    step = np.log(_SCORES_IN_A_KIND)
    kinds = np.stack(
        (
            np.round(np.log(columns.score[order]) / step),
            np.round(np.log(columns.link[order]) / step),
            np.round(np.log(np.maximum(columns.memory_bytes[order], 1.0)) / step),
        )
    )
    counts: Counter[tuple[float, ...]] = Counter()
    first: list[int] = []
    others: list[int] = []
    for index, kind in zip(order.tolist(), map(tuple, kinds.T.tolist()), strict=True):
        counts[kind] += 1
        (first if counts[kind] <= OF_A_KIND else others).append(index)
        if len(first) == MAX_NODES:
            break
    return [*first, *others][:MAX_NODES]


def _holds(table: RunTable, cluster: ClusterView, name: str) -> bool:
    """Whether a node has loaded, or was told to load, a run of the chain."""
    return not table.runs.keys().isdisjoint(cluster.familiar(name))


def _speeds(
    table: RunTable, request: PlacementRequest, cluster: ClusterView, name: str
) -> tuple[float, Floats]:
    """Return the time of a call on a node, and [U] that of an image in each unit.

    Where the node has measured runs of the chain, its units take the same multiple of what was described.
    """
    calls = len(request.job.micro_batches)

    def speed(fragment: Fragment) -> tuple[float, float]:
        return cluster.speed(name, fragment, request.job.application.reference_score, calls)

    units = [speed(unit) for unit in table.units]
    call_ms = max([call_ms for call_ms, _ in units])
    image_ms = np.array([image_ms for _, image_ms in units])
    ratios = []
    for sha256 in table.runs.keys() & cluster.familiar(name):
        first, last, fragment = table.runs[sha256]
        described_ms = float(image_ms[first : last + 1].sum())
        ratios.append(speed(fragment)[1] / described_ms if described_ms > 0 else 1.0)
    known = [ratio for ratio in ratios if isfinite(ratio)]
    return call_ms, image_ms * (median(known) if known else 1.0)


def _holdings(
    table: RunTable, cluster: ClusterView, now_ms: float, names: Sequence[str]
) -> tuple[Floats, Floats]:
    """Return [N, U, U] each: the time to have every run in memory, and the memory that it needs.

    The time to load what a node does not know grows with its size, so two examples tell it for all.
    """
    some = next(iter(table.runs.values()))[2]
    least, most = float(table.file_bytes[table.file_bytes > 0].min()), float(table.file_bytes.max())
    examples = [
        some.model_copy(update={"sha256": UNKNOWN, "file_bytes": int(size)}) for size in (least, most)
    ]
    load_ms, needed_bytes = [], []
    for name in names:
        slow_ms, quick_ms = (
            cluster.fragment_ready_ms(name, each, now_ms) - now_ms for each in reversed(examples)
        )
        each_ms = (slow_ms - quick_ms) / (most - least) if most > least else 0.0
        loads = quick_ms + each_ms * (table.file_bytes - least)
        budget = cluster.nodes[name].memory_budget_bytes
        needs = np.where(table.preparing_bytes > budget, inf, table.memory_bytes)
        for sha256 in cluster.familiar(name):
            if sha256 in table.runs:
                first, last, fragment = table.runs[sha256]
                loads[first, last] = cluster.fragment_ready_ms(name, fragment, now_ms) - now_ms
                is_shared = cluster.shares(name, sha256)
                needs[first, last] = 0.0 if is_shared else cluster.needed_bytes(name, fragment)
        load_ms.append(loads)
        needed_bytes.append(needs)
    return np.array(load_ms), np.array(needed_bytes)
