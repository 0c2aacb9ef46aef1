"""One command's work: run several experiments and write a page for each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from splitplace.experiments import page
from splitplace.experiments.catalogue import EXPERIMENTS
from splitplace.experiments.plan import Experiment
from splitplace.experiments.running import RunCache, requests_of
from splitplace.storage.model_store import ModelStore

COMMON: Final[Mapping[str, Any]] = {"training_intervals": 100, "rules": "paper", "drain_intervals": 30}
"""Fields of the scenario, unless the experiment or the command says otherwise."""


@dataclass(frozen=True)
class SessionPlan:
    """The experiments of one command and their settings.

    Attributes:
        experiments: the experiments, in order.
        scenario: fields of the scenario for all experiments; they override the experiments' own.
        seeds: runs of each policy in each case; None = as each experiment says.
        policies: policies to run; empty for all.
        command: the command that was given, for the pages.
        commit: commit of the source; None if unknown.
    """

    experiments: Sequence[Experiment]
    scenario: Mapping[str, Any] = field(default_factory=dict)
    seeds: int | None = None
    policies: Sequence[str] = ()
    command: Sequence[str] = ()
    commit: str | None = None

    def scenario_of(self, experiment: Experiment) -> dict[str, Any]:
        """Return the fields of the scenario for all cases; the command's override the experiment's own."""
        return {**COMMON, **experiment.scenario, **self.scenario}

    def seeds_of(self, experiment: Experiment) -> int:
        """Return the number of runs of each policy in each case."""
        return experiment.seeds if self.seeds is None else self.seeds


def adapted(experiment: Experiment, stores: Sequence[Path]) -> Experiment:
    """Return an experiment as it is with the networks of some folders. Raises StoreError."""
    if experiment.for_networks is None:
        return experiment
    return experiment.for_networks(ModelStore(*stores).names())


def simulations(plan: SessionPlan, cache: RunCache) -> int:
    """Count the trainings and simulations to run; those that several experiments share count once."""
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
    """Run all experiments and write a page for each, and a list of the pages.

    Args:
        plan: the experiments and their settings.
        cache: runs the simulations and keeps their results.
        folder: folder for the pages; created if missing.
        done: called after each training and simulation with its experiment.

    Yields:
        The path of each page once it is written.
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
        page.write_index(EXPERIMENTS.values(), folder, notes_on("summary"))
        yield written


def notes_on(name: str) -> str:
    """Return the handwritten notes on an experiment; empty if there are none."""
    notes = files("splitplace.experiments") / "notes" / f"{name}.md"
    return notes.read_text(encoding="utf-8") if notes.is_file() else ""


def _requests(plan: SessionPlan, experiment: Experiment) -> dict[Any, Any]:
    return requests_of(experiment, plan.scenario_of(experiment), plan.seeds_of(experiment), plan.policies)
