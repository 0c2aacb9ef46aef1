"""Runs simulations, many at a time, each only once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from joblib import Parallel, delayed, parallel_config

from experiments.figures import Run, Runs
from experiments.plan import Experiment
from simulator import Scenario

Simulate = Callable[["Request"], Run]
"""Does one simulation. Must be importable by name, for other processes do it."""


@dataclass(frozen=True)
class Request:
    """One simulation.

    Attributes:
        scenario: what is simulated.
        policy: split+placement.
        seed: of arrivals, network and policy.
    """

    scenario: Scenario
    policy: str
    seed: int

    @property
    def key(self) -> str:
        """The same for the same simulation."""
        return f"{self.policy} {self.seed} {self.scenario.model_dump_json()}"


@dataclass(frozen=True)
class Workers:
    """Who does the simulations.

    Attributes:
        jobs: how many at a time.
        backend: of joblib; `dask` and `ray` use a cluster that is already connected.
    """

    jobs: int = 1
    backend: str = "loky"


@dataclass
class Laboratory:
    """Does simulations and remembers what they gave, so that experiments share what they have in common."""

    simulate: Simulate
    workers: Workers = field(default_factory=Workers)
    _known: dict[str, Run] = field(default_factory=dict)

    def missing(self, requests: Iterable[Request]) -> list[Request]:
        """Those of the requests that were not simulated yet, each once."""
        return list({request.key: request for request in requests if request.key not in self._known}.values())

    def run(self, requests: Iterable[Request], done: Callable[[], None]) -> None:
        """Simulates what is missing.

        Args:
            requests: what will be asked for.
            done: called after each simulation; where the backend tells only of the end of all (ray), then.
        """
        return_as = "list" if self.workers.backend == "ray" else "generator_unordered"
        with parallel_config(backend=self.workers.backend, n_jobs=self.workers.jobs):
            work = (delayed(_labelled)(self.simulate, request) for request in self.missing(requests))
            for key, run in Parallel(return_as=return_as, batch_size=1)(work):
                self._known[key] = run
                done()

    def runs(self, requests: Mapping[tuple[str, str], Mapping[int, Request]]) -> Runs:
        """What was simulated, in the order of the requests. Raises KeyError for one that was not."""
        return Runs(
            {
                cell: {seed: self._known[request.key] for seed, request in by_seed.items()}
                for cell, by_seed in requests.items()
            }
        )


def _labelled(simulate: Simulate, request: Request) -> tuple[str, Run]:
    return request.key, simulate(request)


def requests_of(
    experiment: Experiment, common: Mapping[str, Any], seeds: int, only: Sequence[str] = ()
) -> dict[tuple[str, str], dict[int, Request]]:
    """All simulations of an experiment, by case and policy, then by seed.

    Args:
        experiment: which one.
        common: fields of the scenario for all cases; those that a case changes win.
        seeds: how many for each policy and case.
        only: policies to keep; empty for all.

    Raises:
        pydantic.ValidationError: a field does not exist or cannot have that value.
    """
    return {
        (case.name, policy): {seed: Request(scenario, policy, seed) for seed in range(seeds)}
        for case in experiment.cases
        for scenario in [Scenario.model_validate({**common, **case.changes})]
        for policy in experiment.policies
        if not only or policy in only
    }
