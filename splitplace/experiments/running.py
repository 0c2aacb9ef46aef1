"""Train policies and run simulations, many in parallel and each only once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from joblib import Parallel, delayed, parallel_config

from splitplace.experiments.figures import Run, Runs
from splitplace.experiments.plan import Case, Experiment, PolicyRow
from splitplace.simulator import Learnt, Scenario, arms_of
from splitplace.simulator.oracle import ORACLE, UPPER_BOUND

FIRST_SEED = 200
"""Seeds count from here. Constants and weights were chosen with seeds below 200, which appear in no table."""

POLICY_FIELDS = frozenset({"arms", "alpha", "mode", "training_intervals"})
"""Fields of a scenario that say how policies decide and learn. They hold for the training too."""

ALL_KNOWING = frozenset({ORACLE, UPPER_BOUND})
ALWAYS_THE_SAME = frozenset({"whole", "layer", "semantic", "compressed"})
"""Split policies that ask nothing that is learnt."""
STATELESS = frozenset({"earliest-finish", "random", "round-robin"})
"""Placement policies that learn nothing."""


@dataclass(frozen=True)
class TrainingRun:
    """The training of one policy. Any number of simulations may start from it.

    Attributes:
        scenario: where the policy learns, and for how long (`training_intervals`).
        policy: split+placement.
        seed: seed of all random numbers.
    """

    scenario: Scenario
    policy: str
    seed: int

    @property
    def key(self) -> str:
        """Identical for identical trainings. Drift, draining and `intervals` play no part in a training."""
        relevant = self.scenario.model_copy(update={"intervals": 1, "drift": None, "drain_intervals": 0})
        return f"{self.policy} {self.seed} {_spelled_out(relevant, self.policy)}"


@dataclass(frozen=True)
class SimulationRequest:
    """One simulation.

    Attributes:
        scenario: what is simulated.
        policy: split+placement.
        seed: seed of arrivals, network and policy.
        training: the training that the policy starts from; None for an untrained policy.
    """

    scenario: Scenario
    policy: str
    seed: int
    training: TrainingRun | None = None

    @property
    def key(self) -> str:
        """Identical for identical simulations."""
        before = self.training.key if self.training else "untrained"
        return f"{self.policy} {self.seed} {_spelled_out(self.scenario, self.policy)} after {before}"


def _spelled_out(scenario: Scenario, policy: str) -> str:
    """Return all fields, with a policy's default arms named and all arms sorted.

    Folders of networks are left out where none is read: they differ from one checkout to the next.
    """
    arms = tuple(sorted(arms_of(scenario, policy.partition("+")[0])))
    stores = scenario.stores if scenario.profile == "store" else ()
    return scenario.model_copy(update={"arms": arms, "stores": stores}).model_dump_json()


@dataclass(frozen=True)
class TrainedPolicies:
    """The result of a training.

    Attributes:
        learnt: state of the policies.
        series: figures by dotted name, one for each interval of the training.
    """

    learnt: Learnt
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)


TrainPolicies = Callable[[TrainingRun], TrainedPolicies]
Simulate = Callable[[SimulationRequest, TrainedPolicies | None], Run]
"""Both must be importable by name, because other processes call them."""


@dataclass(frozen=True)
class Workers:
    """What runs the simulations.

    Attributes:
        jobs: number of simulations in parallel.
        backend: joblib backend; `dask` and `ray` use a cluster that is already connected.
    """

    jobs: int = 1
    backend: str = "loky"


class KeptRuns(Protocol):
    """Results that outlast the process."""

    def training(self, training: TrainingRun) -> TrainedPolicies | None:
        """Return the result of a training; None if it was not kept."""

    def keep_training(self, training: TrainingRun, trained: TrainedPolicies) -> None:
        """Keep the result of a training."""

    def simulation(self, request: SimulationRequest) -> Run | None:
        """Return the result of a simulation; None if it was not kept."""

    def keep_simulation(self, request: SimulationRequest, run: Run) -> None:
        """Keep the result of a simulation."""


@dataclass
class RunCache:
    """Run simulations and keep their results, so that experiments share what they have in common."""

    train_policies: TrainPolicies
    simulate: Simulate
    workers: Workers = field(default_factory=Workers)
    kept: KeptRuns | None = None
    _trained: dict[str, TrainedPolicies] = field(default_factory=dict)
    _runs: dict[str, Run] = field(default_factory=dict)

    def missing(
        self, requests: Iterable[SimulationRequest]
    ) -> tuple[list[TrainingRun], list[SimulationRequest]]:
        """Return the trainings and the simulations that have not been run yet, each once."""
        runs = {request.key: request for request in requests if not self._has_run(request)}
        trainings = {request.training.key: request.training for request in runs.values() if request.training}
        untrained = [training for training in trainings.values() if not self._has_trained(training)]
        return untrained, list(runs.values())

    def _has_run(self, request: SimulationRequest) -> bool:
        if request.key not in self._runs and self.kept and (run := self.kept.simulation(request)):
            self._runs[request.key] = run
        return request.key in self._runs

    def _has_trained(self, training: TrainingRun) -> bool:
        if training.key not in self._trained and self.kept and (found := self.kept.training(training)):
            self._trained[training.key] = found
        return training.key in self._trained

    def run(self, requests: Iterable[SimulationRequest], done: Callable[[], None]) -> None:
        """Run what is missing.

        Args:
            requests: the simulations that are needed.
            done: called after each training and each simulation. The backend `ray` reports only the end of
                all trainings, and of all simulations.
        """
        trainings, runs = self.missing(requests)
        jobs = (delayed(_train)(self.train_policies, training) for training in trainings)
        trainings_by_key = {training.key: training for training in trainings}
        for key, trained in self._parallel(jobs):
            self._trained[key] = trained
            if self.kept:
                self.kept.keep_training(trainings_by_key[key], trained)
            done()
        calls = (delayed(_simulate)(self.simulate, request, self._before(request)) for request in runs)
        runs_by_key = {request.key: request for request in runs}
        for key, run in self._parallel(calls):
            self._runs[key] = run
            if self.kept:
                self.kept.keep_simulation(runs_by_key[key], run)
            done()

    def runs(self, requests: Mapping[tuple[str, str], Mapping[int, SimulationRequest]]) -> Runs:
        """Return the results in the order of the requests. Raises KeyError for one that was not run."""
        return Runs(
            {
                cell: {seed: self._runs[request.key] for seed, request in by_seed.items()}
                for cell, by_seed in requests.items()
            }
        )

    def _before(self, request: SimulationRequest) -> TrainedPolicies | None:
        return self._trained[request.training.key] if request.training else None

    def _parallel(self, calls: Iterable[Any]) -> Iterable[tuple[str, Any]]:
        return_as = "list" if self.workers.backend == "ray" else "generator_unordered"
        with parallel_config(backend=self.workers.backend, n_jobs=self.workers.jobs):
            yield from Parallel(return_as=return_as, batch_size=1)(calls)


def _train(train_policies: TrainPolicies, training: TrainingRun) -> tuple[str, TrainedPolicies]:
    return training.key, train_policies(training)


def _simulate(
    simulate: Simulate, request: SimulationRequest, trained: TrainedPolicies | None
) -> tuple[str, Run]:
    return request.key, simulate(request, trained)


def requests_of(
    experiment: Experiment,
    common: Mapping[str, Any],
    seeds: int,
    only: Sequence[str] = (),
    *,
    first_seed: int = FIRST_SEED,
) -> dict[tuple[str, str], dict[int, SimulationRequest]]:
    """Return all simulations of an experiment, by case and row, then by seed.

    Policies train in the common scenario, not in that of the case, so that a policy meets a case's changes
    for the first time in the simulation. Only `POLICY_FIELDS` of a case hold for the training too.

    Args:
        experiment: the experiment.
        common: fields of the scenario for all cases; the changes of a case take precedence.
        seeds: number of seeds for each row and case.
        only: rows to keep, by name or by policy; empty for all.
        first_seed: the first of the seeds, which follow each other.

    Raises:
        pydantic.ValidationError: a field does not exist or cannot have that value.
    """
    requests: dict[tuple[str, str], dict[int, SimulationRequest]] = {}
    for case in experiment.cases:
        for row in experiment.rows:
            if not only or row.name in only or row.policy in only:
                scenario, training_scenario = _scenarios(common, case, row)
                requests[case.name, row.name] = {
                    seed: SimulationRequest(
                        scenario,
                        row.policy,
                        seed,
                        _training_run(training_scenario, row.policy, seed) if row.trained else None,
                    )
                    for seed in range(first_seed, first_seed + seeds)
                }
    return requests


def _scenarios(common: Mapping[str, Any], case: Case, row: PolicyRow) -> tuple[Scenario, Scenario]:
    """Return the scenario of the simulation and that of the training before it."""
    own = {} if row.arms is None else {"arms": row.arms}
    decided = {name: value for name, value in case.changes.items() if name in POLICY_FIELDS}
    return (
        Scenario.model_validate({**common, **case.changes, **own, "training_intervals": 0}),
        Scenario.model_validate({**common, **decided, **own}),
    )


def _training_run(scenario: Scenario, policy: str, seed: int) -> TrainingRun | None:
    """Return the training of a policy; None for one that has nothing to learn."""
    split, _, placement = policy.partition("+")
    learns = split not in ALL_KNOWING and not (split in ALWAYS_THE_SAME and placement in STATELESS)
    return TrainingRun(scenario, policy, seed) if learns and scenario.training_intervals else None
