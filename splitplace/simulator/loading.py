"""What simulated hosts are told to load ahead: the placer's hints, and the timer of its slow loop."""

from collections.abc import Iterable, Mapping

from splitplace.messages.application import Application, Fragment
from splitplace.messages.cluster import PrepareFragments
from splitplace.messages.groupings import derived_fragment
from splitplace.policies.placement.loading import DemandLoading
from splitplace.services.placer.core import PlacerCore
from splitplace.simulator.events import EventQueue
from splitplace.simulator.scenario import Scenario
from splitplace.simulator.world import World

PERIOD_INTERVALS = 10
"""Intervals between two plans, where the scenario does not say."""


class Loader:
    """Plays the nodes that read hints, and the timer of the placer's slow loop."""

    def __init__(self, scenario: Scenario, world: World, interval_ms: float) -> None:
        """Let hosts begin with nothing loaded, if the scenario simulates loading."""
        period_s = scenario.loading_s
        self._period_ms = PERIOD_INTERVALS * interval_ms if period_s is None else 1000 * period_s
        self._world = world
        self.by_demand = DemandLoading(self._period_ms) if scenario.loading == "demand" else None
        """Decides what hosts hold; None unless the scenario wants it."""
        if scenario.loading is not None:
            world.simulate_loading(scenario.overcommit)

    def load(self, hints: Iterable[PrepareFragments], applications: Mapping[str, Application]) -> None:
        """Hand hints over to the hosts."""
        for hint in hints:
            holdings = self._world.machines[hint.node].holdings
            if holdings is not None:
                holdings.load_when_idle(_fragments(hint, applications), hint.gives_way)

    def plan_regularly(
        self, placer: PlacerCore, events: EventQueue, applications: Mapping[str, Application]
    ) -> None:
        """Ask the placer now and then what hosts should hold. Finding the answer takes no simulated time."""
        if self.by_demand is None:
            return

        def plan() -> None:
            solve = placer.plan_loading(events.now_ms)
            if solve is not None:
                self.load(solve()(), applications)
            events.after(self._period_ms, plan)

        events.after(self._period_ms, plan)


def _fragments(hint: PrepareFragments, applications: Mapping[str, Application]) -> Iterable[Fragment]:
    """Yield the fragments that a hint names."""
    if hint.runs and hint.application is not None:
        for run in hint.runs:
            if run is not None:
                yield derived_fragment(applications[hint.application], run)
        return
    known = {each.sha256: each for application in applications.values() for each in application.fragments}
    yield from (known[sha256] for sha256 in hint.fragments if sha256 in known)
