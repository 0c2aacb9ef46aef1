"""Loading by demand: a slow loop that moves what nodes hold to where the tasks to come need it. Pure.

Three steps, so that the caller can solve in a thread while decisions go on: `plan` reads the cluster,
`Programme.solve` needs nothing else, and `changes` says what follows for the nodes as they are then.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from splitplace.messages.application import Application, Fragment
from splitplace.messages.pieces import PieceRun
from splitplace.messages.task import TaskDecided
from splitplace.policies.cluster import ClusterView
from splitplace.policies.job import Job
from splitplace.policies.placement.demand import Forecast
from splitplace.policies.placement.loading_programme import Programme, Way
from splitplace.policies.placement.warm_up import catalogue_of, fill, is_held

LoadingName = Literal["rarest", "demand"]
"""What decides what nodes load ahead: what the fewest hold, or the demand to come."""

HALF_LIFE = 3.0
"""Half-life of the forecast, in periods of the loop."""

MAX_GROUPINGS = 64
"""Chains whose latest grouping is kept."""


@dataclass(frozen=True, slots=True)
class NodeChange:
    """What a node should load."""

    node: str
    load: tuple[str, ...]
    """Hashes of fragments, in this order."""
    gives_way: tuple[str, ...]
    """Loaded fragments that make room for them, if no task uses them."""
    runs: Mapping[str, tuple[str, PieceRun]]
    """Application and pieces of those in `load` that no manifest describes."""


class DemandLoading:
    """Counts what arrives, and chooses what nodes hold."""

    def __init__(self, period_ms: float) -> None:
        """A loop that has seen nothing.

        Args:
            period_ms: time between two plans.
        """
        self._forecast = Forecast(HALF_LIFE * period_ms)
        self._groupings: OrderedDict[tuple[str, str], Job] = OrderedDict()
        """The latest placement of chains that may be grouped anew, by application and variant."""

    def decided(self, decided: TaskDecided, now_ms: float) -> None:
        """Count a task; further attempts at it are none."""
        if decided.attempt == 1:
            self._forecast.arrived(
                decided.application, decided.variant, decided.batch, decided.slack_ms, now_ms
            )

    def placed(self, job: Job) -> None:
        """Note the stages that were chosen for a chain: its variant is loaded in these from now on."""
        if job.grouped is not None:
            key = job.application.name, job.variant.name
            self._groupings[key] = job
            self._groupings.move_to_end(key)
            if len(self._groupings) > MAX_GROUPINGS:
                self._groupings.popitem(last=False)

    def plan(
        self, applications: Iterable[Application], cluster: ClusterView, now_ms: float
    ) -> Programme | None:
        """Return the programme to solve; None if nothing was asked yet, or it would be too large."""
        known = {application.name: application for application in applications}
        demands = [each for each in self._forecast.demands(now_ms) if each.application in known]
        ways = [
            Way(number, job)
            for number, demand in enumerate(demands)
            for job in self._jobs(known[demand.application], max(1, round(demand.batch)))
        ]
        return Programme.of(demands, ways, cluster, now_ms, self._forecast.half_life_ms / 1000)

    def changes(
        self, held: Mapping[str, tuple[str, ...]], applications: Iterable[Application], cluster: ClusterView
    ) -> list[NodeChange]:
        """Return what nodes should load so that they hold what the programme chose.

        What is loaded beside that stays as far as memory reaches. What is free is filled as by the warm-up.

        Args:
            held: the solution of a programme.
            applications: the catalogue.
            cluster: the nodes as they are now; those that the solution does not know are left alone.
        """
        applications = tuple(applications)
        catalogue = {fragment.sha256: fragment for fragment in catalogue_of(applications)}
        grouped = {key: fragment for key, (fragment, _, _) in self._grouped().items()}
        known = grouped | catalogue
        nodes = [name for name in cluster.nodes if name in held]
        kept: dict[str, list[str]] = {}
        room: dict[str, float] = {}
        for name in nodes:
            needed = {sha256: cluster.needed_bytes(name, each) for sha256, each in known.items()}
            loaded = [sha256 for sha256, each in known.items() if is_held(cluster, name, each)]
            busy = [sha256 for sha256 in loaded if cluster.reserves(name, sha256)]
            room[name] = float(cluster.nodes[name].memory_budget_bytes)
            kept[name] = []
            for sha256 in dict.fromkeys(chain(held[name], busy, loaded)):
                if sha256 in needed and needed[sha256] <= room[name]:
                    room[name] -= needed[sha256]
                    kept[name].append(sha256)
        holders = Counter(chain.from_iterable(kept.values()))
        found = []
        for name in sorted(nodes, key=lambda name: (-cluster.nodes[name].score, name)):
            missing = sorted(catalogue.keys() - set(kept[name]), key=list(catalogue).index)
            rarest = sorted(missing, key=lambda sha256: holders[sha256])
            needed = {sha256: cluster.needed_bytes(name, catalogue[sha256]) for sha256 in missing}
            more = fill(rarest, needed, room[name])
            holders.update(more)
            found.append(self._change(name, (*kept[name], *more), cluster))
        return [change for change in found if change.load]

    def _change(self, name: str, wanted: tuple[str, ...], cluster: ClusterView) -> NodeChange:
        load = tuple(sha256 for sha256 in wanted if not cluster.is_loaded(name, sha256))
        others = set(cluster.nodes[name].loaded) - set(wanted)
        gives_way = tuple(sha256 for sha256 in cluster.nodes[name].loaded if sha256 in others)
        grouped = self._grouped()
        runs = {sha256: grouped[sha256][1:] for sha256 in load if sha256 in grouped}
        return NodeChange(name, load, gives_way, runs)

    def _jobs(self, application: Application, batch: int) -> Iterable[Job]:
        """Yield the ways to run a batch; chains that were grouped anew, in the stages they had last."""
        for variant in application.variants:
            latest = self._groupings.get((application.name, variant.name))
            if latest is not None and latest.application is application:
                yield replace(latest, batch=batch)
            else:
                yield Job(application, variant, batch)

    def _grouped(self) -> dict[str, tuple[Fragment, str, PieceRun]]:
        """Return fragment, application and pieces of the latest groupings, by hash."""
        return {
            job.fragments[stage].sha256: (job.fragments[stage], job.application.name, run)
            for job in self._groupings.values()
            for stage, run in job.runs.items()
        }
