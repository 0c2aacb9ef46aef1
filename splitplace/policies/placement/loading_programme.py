"""Which fragments each node should hold, as a mixed-integer programme over the demand to come. Pure.

As in Proteus (ASPLOS 2024), what is loaded where follows from the demand: the greatest expected reward that
memory and computing time of the nodes allow. Variables, for nodes n, fragments f, and the stages s of a way
(one variant) to answer a group of tasks:

* `x[n, f]`, 0 or 1: whether n holds f.
* `y[s, n]`: how many of the tasks, in a second, have stage s computed on n; only where n holds its fragment.
* `h[n]`: by how much n is busier than `CALM`.

Queues, and what tasks do to each other, are left out but for `CALM` and `BUSIEST`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splitplace.messages.application import INPUT, Fragment
from splitplace.policies.cluster import ClusterView
from splitplace.policies.cost import RETURN_HOPS, Floats
from splitplace.policies.job import Job
from splitplace.policies.placement.demand import Demand

MAX_COLUMNS = 20_000
"""Variables of the largest programme that is tried."""

TIME_LIMIT_S = 5.0
"""For a slow machine. On others a limit of branches, which always gives the same answer, comes first."""

MAX_BRANCHES = 200

GAP = 0.001
"""Share of the best possible value that a solution may miss."""

BUSIEST = 0.8
"""Share of its time that a node computes at most."""

CALM = 0.4
"""Share of its time that a node may compute before the next node is preferred."""

SPREADING = 0.25
"""Price of a whole node's time beyond `CALM`, as a share of what a node earns on average."""

FAMILIAR = 0.05
"""What a variant earns more that is always chosen: among equals, what the split policy prefers is loaded."""

IN_TIME_FROM = 0.5
"""Slack over time alone at which a task begins to have a chance; one more than that, and it is in time."""

DISPATCH_HOPS = 2
"""From the decision until the inputs are sent."""

Places = npt.NDArray[np.int64]

_SMALL = 1e-9
_HALF = 0.5
"""Whole numbers of the solver are whole within a tolerance."""


@dataclass(frozen=True, slots=True)
class Way:
    """One variant, for one group of tasks."""

    group: int
    """Index of the demand."""
    job: Job


@dataclass(frozen=True, slots=True)
class _Use:
    """A stage of a way: what it earns and takes on each node."""

    way: int
    fragment: int
    earns: Floats
    """[N] Expected reward of a task that has this stage computed there, over the number of stages."""
    work_s: Floats
    """[N] Computing time of a task there."""


@dataclass(frozen=True, slots=True)
class Programme:
    """The programme as arrays, so that it can be solved in a thread while decisions go on."""

    nodes: tuple[str, ...]
    fragments: tuple[Fragment, ...]
    per_second: Floats
    """[G] Tasks of each group."""
    groups: tuple[int, ...]
    """[W] The group of each way."""
    uses: tuple[_Use, ...]
    budget_bytes: Floats
    """[N]"""
    needed_bytes: Floats
    """[N, F] Infinite where a node cannot hold a fragment."""
    price: Floats
    """[N, F] Of loading; 0 where it is loaded."""

    @classmethod
    def of(
        cls,
        demands: Sequence[Demand],
        ways: Sequence[Way],
        cluster: ClusterView,
        now_ms: float,
        horizon_s: float,
    ) -> "Programme | None":
        """Read all figures from the cluster; None if nothing can be gained, or the programme is too large.

        Args:
            demands: the groups of tasks to come.
            ways: what may be done for them.
            cluster: nodes with their speeds, links and memory, and what they have loaded.
            now_ms: the present moment.
            horizon_s: for how long what is loaded pays off.
        """
        fragments = tuple({each.sha256: each for way in ways for each in way.job.fragments.values()}.values())
        stages = sum(len(way.job.variant.stages) for way in ways)
        nodes, columns = tuple(cluster.nodes), cluster.columns
        if not ways or not nodes or len(nodes) * (stages + len(fragments) + 1) > MAX_COLUMNS:
            return None
        index = {fragment.sha256: place for place, fragment in enumerate(fragments)}
        per_second = np.array([demand.per_second for demand in demands])
        usable = columns.usable(frozenset())
        needed = np.array([columns.needed_bytes(fragment) for fragment in fragments]).T
        needed[~usable] = np.inf
        load_s = np.array([columns.fragment_ready_ms(each, now_ms) - now_ms for each in fragments]).T / 1000
        needed[~np.isfinite(load_s)] = np.inf
        node_earns = float(per_second.sum()) / len(nodes)
        price = np.where(np.isfinite(load_s), node_earns * load_s / horizon_s, 0.0)
        uses = [
            _Use(place, index[way.job.fragments[stage].sha256], earns, work_s)
            for place, way in enumerate(ways)
            for stage, earns, work_s in _uses(way.job, demands[way.group], cluster)
        ]
        groups = tuple(way.group for way in ways)
        budgets = columns.memory_bytes.copy()
        return cls(nodes, fragments, per_second, groups, tuple(uses), budgets, needed, price)

    def solve(self) -> dict[str, tuple[str, ...]] | None:
        """Return hashes of the fragments that each node should hold, the most useful first.

        Only what the expected tasks need is named; there may be room for more. None if scipy is missing, or
        finds no solution within its limits.
        """
        try:
            from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415 - an extra; slow to import
            from scipy.sparse import csr_array  # noqa: PLC0415
        except ImportError:
            return None
        count, held = len(self.nodes), len(self.nodes) * len(self.fragments)
        columns = held + count * len(self.uses) + count
        rows = _Rows()
        self._limit_memory(rows)
        self._follow_tasks(rows)
        self._limit_time(rows)
        matrix = csr_array((rows.values, (rows.numbers, rows.columns)), shape=(rows.count, columns))
        earns = np.concatenate(
            [-self.price.ravel(), *(use.earns for use in self.uses), np.full(count, -self._spreading)]
        )
        result = milp(
            -earns,
            integrality=np.concatenate([np.ones(held), np.zeros(columns - held)]),
            bounds=Bounds(0.0, self._most()),
            constraints=LinearConstraint(matrix, rows.least, rows.most),
            options={"time_limit": TIME_LIMIT_S, "node_limit": MAX_BRANCHES, "mip_rel_gap": GAP},
        )
        if result.x is None:
            return None
        return self._held(result.x[:held].reshape(count, -1), result.x[held : columns - count])

    @property
    def _spreading(self) -> float:
        return SPREADING * float(self.per_second.sum()) / len(self.nodes)

    def _rate(self, use: _Use) -> float:
        return float(self.per_second[self.groups[use.way]])

    def _column(self, use: int) -> int:
        """Return the first of the columns of a use; one for each node."""
        return len(self.nodes) * (len(self.fragments) + use)

    def _most(self) -> Floats:
        """Return the upper bounds of all variables."""
        fits = self.needed_bytes <= self.budget_bytes[:, None]
        parts = [fits.astype(np.float64).ravel()]
        parts += [
            np.where((use.earns > 0) & fits[:, use.fragment], self._rate(use), 0.0) for use in self.uses
        ]
        return np.concatenate([*parts, np.full(len(self.nodes), np.inf)])

    def _limit_memory(self, rows: "_Rows") -> None:
        for node, budget in enumerate(self.budget_bytes):
            fits = np.flatnonzero(self.needed_bytes[node] <= budget)
            # In megabytes: the solver wants coefficients of about one.
            megabytes = self.needed_bytes[node, fits] / 1e6
            rows.add(node * len(self.fragments) + fits, megabytes, -np.inf, budget / 1e6)

    def _follow_tasks(self, rows: "_Rows") -> None:
        """A stage runs only where its fragment is; all stages of a way run as often; no task runs twice."""
        nodes = np.arange(len(self.nodes))
        first: dict[int, int] = {}
        answered: dict[int, list[int]] = {}
        for place, use in enumerate(self.uses):
            mine = self._column(place) + nodes
            for node in np.flatnonzero(use.earns > 0).tolist():
                holds = node * len(self.fragments) + use.fragment
                rows.add(np.array([mine[node], holds]), np.array([1.0, -self._rate(use)]), -np.inf, 0.0)
            if use.way in first:
                others = self._column(first[use.way]) + nodes
                rows.add(np.concatenate([mine, others]), np.repeat([1.0, -1.0], len(nodes)), 0.0, 0.0)
            else:
                first[use.way] = place
                answered.setdefault(self.groups[use.way], []).extend(mine.tolist())
        for group, places in answered.items():
            rows.add(np.array(places), np.ones(len(places)), -np.inf, float(self.per_second[group]))

    def _limit_time(self, rows: "_Rows") -> None:
        places = np.array([self._column(place) for place in range(len(self.uses))])
        beyond = self._column(len(self.uses))
        for node in range(len(self.nodes)):
            work_s = np.array([use.work_s[node] if use.earns[node] > 0 else 0.0 for use in self.uses])
            columns = np.append(places + node, beyond + node)
            rows.add(columns, np.append(work_s, 0.0), -np.inf, BUSIEST)
            rows.add(columns, np.append(work_s, -1.0), -np.inf, CALM)

    def _held(self, holds: Floats, tasks: Floats) -> dict[str, tuple[str, ...]]:
        """Return what nodes should hold. The solver keeps budgets within a tolerance, this does exactly."""
        useful = np.zeros_like(holds)
        for place, use in enumerate(self.uses):
            amounts = tasks[place * len(self.nodes) : (place + 1) * len(self.nodes)]
            useful[:, use.fragment] += amounts * use.earns
        chosen = {}
        for node, name in enumerate(self.nodes):
            left, mine = self.budget_bytes[node], []
            for fragment in np.argsort(-useful[node], kind="stable").tolist():
                needed = self.needed_bytes[node, fragment]
                if useful[node, fragment] > _SMALL and holds[node, fragment] > _HALF and needed <= left:
                    left -= needed
                    mine.append(self.fragments[fragment].sha256)
            chosen[name] = tuple(mine)
        return chosen


class _Rows:
    """Rows of a sparse matrix, with their bounds."""

    def __init__(self) -> None:
        self._columns: list[Places] = []
        self._values: list[Floats] = []
        self._lengths: list[int] = []
        self.least: list[float] = []
        self.most: list[float] = []

    def add(self, columns: Places, values: Floats, least: float, most: float) -> None:
        """Add a row."""
        self._columns.append(columns)
        self._values.append(values)
        self._lengths.append(len(columns))
        self.least.append(least)
        self.most.append(most)

    @property
    def count(self) -> int:
        return len(self._lengths)

    @property
    def columns(self) -> Places:
        return np.concatenate(self._columns)

    @property
    def values(self) -> Floats:
        return np.concatenate(self._values)

    @property
    def numbers(self) -> Places:
        return np.repeat(np.arange(self.count), self._lengths)


def _uses(job: Job, demand: Demand, cluster: ClusterView) -> list[tuple[str, Floats, Floats]]:
    """Return each stage with what it earns and the seconds that it computes, on each node."""
    times = {stage.name: _stage_ms(job, stage.name, cluster) for stage in job.variant.stages}
    best = {name: float(whole.min()) for name, (whole, _) in times.items()}
    before: dict[str, float] = {INPUT: 0.0}
    after: dict[str, float] = {}
    for stage in job.variant.stages:
        before[stage.name] = before[stage.source] + best[stage.name]
    for stage in reversed(job.variant.stages):
        children = job.variant.children(stage.name)
        after[stage.name] = max((best[child.name] + after[child.name] for child in children), default=0.0)
    hops_ms = (DISPATCH_HOPS + RETURN_HOPS) * cluster.hop_ms
    share = demand.shares.get(job.variant.name, 0.0)
    answer = (1 + job.variant.accuracy) / 2 * (1 + FAMILIAR * share) / len(job.variant.stages)
    found = []
    for stage in job.variant.stages:
        whole_ms, work_ms = times[stage.name]
        # The other stages of its path stand where they are fastest, which they may not: an upper bound.
        path_ms = hops_ms + before[stage.source] + whole_ms + after[stage.name]
        chance = np.nan_to_num(np.clip(demand.slack_ms / path_ms - IN_TIME_FROM, 0.0, 1.0))
        found.append((stage.name, chance * answer, np.where(chance > 0, work_ms / 1000, 0.0)))
    return found


def _stage_ms(job: Job, stage: str, cluster: ClusterView) -> tuple[Floats, Floats]:
    """Return [N] the time of a stage on each node with its transfers, and its computing time alone."""
    columns, fragment = cluster.columns, job.fragments[stage]
    calls = len(job.micro_batches)
    work_ms = columns.work_ms(fragment, job.application.reference_score, calls, job.batch)
    moved = fragment.input_bytes_per_image * columns.byte_ms
    if stage in job.sinks:
        moved = moved + fragment.output_bytes_per_image * columns.up_byte_ms
    moving_ms = job.batch * moved
    # Micro-batches come and are computed at the same time, all but one of them.
    both_ms = np.maximum(moving_ms, work_ms) + np.minimum(moving_ms, work_ms) / calls
    return both_ms + 2 * columns.latency_ms + cluster.hop_ms, work_ms
