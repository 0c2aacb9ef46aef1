"""A session: what is wanted is planned, simulated, and written down page by page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from splitplace.experiments import page
from splitplace.experiments.catalogue import EXPERIMENTS
from splitplace.experiments.plan import Experiment
from splitplace.experiments.running import RunCache, requests_of

COMMON: Final[Mapping[str, Any]] = {"training_intervals": 100, "rules": "paper"}
"""Fields of the scenario, unless the experiment or the command says otherwise."""


@dataclass(frozen=True)
class SessionPlan:
    """What a session does.

    Attributes:
        experiments: in this order.
        scenario: fields of the simulator's scenario for all cases of all experiments, before their own.
        seeds: runs of each policy in each case; None for what each experiment asks for.
        policies: to restrict all experiments to; empty for all.
        command: that was given, for the pages.
        commit: of the source, where it is known.
    """

    experiments: Sequence[Experiment]
    scenario: Mapping[str, Any] = field(default_factory=dict)
    seeds: int | None = None
    policies: Sequence[str] = ()
    command: Sequence[str] = ()
    commit: str | None = None

    def scenario_of(self, experiment: Experiment) -> dict[str, Any]:
        """Fields of the scenario for all its cases: the command's before the experiment's own."""
        return {**COMMON, **experiment.scenario, **self.scenario}

    def seeds_of(self, experiment: Experiment) -> int:
        """How many runs of each policy in each case."""
        return experiment.seeds if self.seeds is None else self.seeds


def simulations(plan: SessionPlan, cache: RunCache) -> int:
    """How many trainings and simulations are to be done; what several experiments need is done once."""
    wanted = [
        request
        for experiment in plan.experiments
        for by_seed in _requests(plan, experiment).values()
        for request in by_seed.values()
    ]
    trainings, runs = cache.missing(wanted)
    return len(trainings) + len(runs)


def conduct(
    plan: SessionPlan, cache: RunCache, folder: Path, done: Callable[[Experiment], None]
) -> Iterator[Path]:
    """Does all experiments and writes a page for each, and a list of them.

    Args:
        plan: what to do.
        cache: who does it.
        folder: where pages go; made where it is missing.
        done: called after each training and simulation with the experiment that it was for.

    Yields:
        Each page, when it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for experiment in plan.experiments:
        requests = _requests(plan, experiment)
        if not requests:
            continue
        wanted = [request for by_seed in requests.values() for request in by_seed.values()]
        cache.run(wanted, lambda experiment=experiment: done(experiment))  # type: ignore[misc]
        origin = page.Origin(
            plan.command, plan.commit, plan.scenario_of(experiment), plan.seeds_of(experiment)
        )
        runs = cache.runs(requests)
        written = page.write(experiment, runs, origin, folder, notes_on(experiment.name))
        page.write_index(EXPERIMENTS.values(), folder)
        yield written


def notes_on(name: str) -> str:
    """What was written by hand on an experiment; empty where nothing was."""
    notes = files("splitplace.experiments") / "notes" / f"{name}.md"
    return notes.read_text(encoding="utf-8") if notes.is_file() else ""


def _requests(plan: SessionPlan, experiment: Experiment) -> dict[Any, Any]:
    return requests_of(experiment, plan.scenario_of(experiment), plan.seeds_of(experiment), plan.policies)
