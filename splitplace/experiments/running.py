"""Trains policies and runs simulations, many at a time, each only once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from joblib import Parallel, delayed, parallel_config

from splitplace.experiments.figures import Run, Runs
from splitplace.experiments.plan import Case, Contender, Experiment
from splitplace.simulator import Learnt, Scenario, arms_of

OF_POLICIES = frozenset({"arms", "alpha", "mode", "training_intervals"})
"""Fields of a scenario that say how policies decide and learn, not what they meet: training has them too."""


@dataclass(frozen=True)
class Lesson:
    """A training of one policy, which any number of simulations may begin with.

    Attributes:
        scenario: where it learns, and for how long (`training_intervals`).
        policy: split+placement.
        seed: of everything.
    """

    scenario: Scenario
    policy: str
    seed: int

    @property
    def key(self) -> str:
        """The same for the same training, which is steady and lasts as long as `training_intervals` says."""
        steady = self.scenario.model_copy(update={"intervals": 1, "drift": None})
        return f"{self.policy} {self.seed} {_spelled_out(steady, self.policy)}"


@dataclass(frozen=True)
class SimulationRequest:
    """One simulation.

    Attributes:
        scenario: what is simulated.
        policy: split+placement.
        seed: of arrivals, network and policy.
        lesson: what the policy learns from before; None for nothing.
    """

    scenario: Scenario
    policy: str
    seed: int
    lesson: Lesson | None = None

    @property
    def key(self) -> str:
        """The same for the same simulation."""
        before = self.lesson.key if self.lesson else "untrained"
        return f"{self.policy} {self.seed} {_spelled_out(self.scenario, self.policy)} after {before}"


def _spelled_out(scenario: Scenario, policy: str) -> str:
    """All fields, and the same for arms that are named and for the same arms as a policy's own."""
    arms = tuple(sorted(arms_of(scenario, policy.partition("+")[0])))
    return scenario.model_copy(update={"arms": arms}).model_dump_json()


@dataclass(frozen=True)
class Taught:
    """What came of a lesson.

    Attributes:
        learnt: the policies' states.
        series: figures by dotted name, one for each interval of the training.
    """

    learnt: Learnt
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)


Teach = Callable[[Lesson], Taught]
Simulate = Callable[[SimulationRequest, Taught | None], Run]
"""Both must be importable by name, for other processes call them."""


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

    teach: Teach
    simulate: Simulate
    workers: Workers = field(default_factory=Workers)
    _taught: dict[str, Taught] = field(default_factory=dict)
    _runs: dict[str, Run] = field(default_factory=dict)

    def missing(self, requests: Iterable[SimulationRequest]) -> tuple[list[Lesson], list[SimulationRequest]]:
        """What was not done yet, each once: trainings, and the simulations themselves."""
        runs = {request.key: request for request in requests if request.key not in self._runs}
        lessons = {request.lesson.key: request.lesson for request in runs.values() if request.lesson}
        return [lesson for key, lesson in lessons.items() if key not in self._taught], list(runs.values())

    def run(self, requests: Iterable[SimulationRequest], done: Callable[[], None]) -> None:
        """Does what is missing.

        Args:
            requests: what will be asked for.
            done: called after each training and each simulation; where the backend tells only of the end of
                all (ray), then.
        """
        lessons, runs = self.missing(requests)
        for key, taught in self._parallel(delayed(_teach)(self.teach, lesson) for lesson in lessons):
            self._taught[key] = taught
            done()
        calls = (delayed(_simulate)(self.simulate, request, self._before(request)) for request in runs)
        for key, run in self._parallel(calls):
            self._runs[key] = run
            done()

    def runs(self, requests: Mapping[tuple[str, str], Mapping[int, SimulationRequest]]) -> Runs:
        """What was simulated, in the order of the requests. Raises KeyError for one that was not."""
        return Runs(
            {
                cell: {seed: self._runs[request.key] for seed, request in by_seed.items()}
                for cell, by_seed in requests.items()
            }
        )

    def _before(self, request: SimulationRequest) -> Taught | None:
        return self._taught[request.lesson.key] if request.lesson else None

    def _parallel(self, calls: Iterable[Any]) -> Iterable[tuple[str, Any]]:
        return_as = "list" if self.workers.backend == "ray" else "generator_unordered"
        with parallel_config(backend=self.workers.backend, n_jobs=self.workers.jobs):
            yield from Parallel(return_as=return_as, batch_size=1)(calls)


def _teach(teach: Teach, lesson: Lesson) -> tuple[str, Taught]:
    return lesson.key, teach(lesson)


def _simulate(simulate: Simulate, request: SimulationRequest, taught: Taught | None) -> tuple[str, Run]:
    return request.key, simulate(request, taught)


def requests_of(
    experiment: Experiment, common: Mapping[str, Any], seeds: int, only: Sequence[str] = ()
) -> dict[tuple[str, str], dict[int, SimulationRequest]]:
    """All simulations of an experiment, by case and row, then by seed.

    Policies train in the common scenario, not in that of the case: what a case changes, they meet for the
    first time. Its `OF_POLICIES` hold for the training too.

    Args:
        experiment: which one.
        common: fields of the scenario for all cases; those that a case changes win.
        seeds: how many for each row and case.
        only: rows to keep, by name or by policy; empty for all.

    Raises:
        pydantic.ValidationError: a field does not exist or cannot have that value.
    """
    requests: dict[tuple[str, str], dict[int, SimulationRequest]] = {}
    for case in experiment.cases:
        for contender in experiment.contenders:
            if not only or contender.name in only or contender.policy in only:
                scenario, school = _scenarios(common, case, contender)
                requests[case.name, contender.name] = {
                    seed: SimulationRequest(
                        scenario, contender.policy, seed, _lesson(school, contender.policy, seed)
                    )
                    for seed in range(seeds)
                }
    return requests


def _scenarios(common: Mapping[str, Any], case: Case, contender: Contender) -> tuple[Scenario, Scenario]:
    """Of the simulation, and of the training before it."""
    own = {} if contender.arms is None else {"arms": contender.arms}
    decided = {name: value for name, value in case.changes.items() if name in OF_POLICIES}
    return (
        Scenario.model_validate({**common, **case.changes, **own, "training_intervals": 0}),
        Scenario.model_validate({**common, **decided, **own}),
    )


def _lesson(school: Scenario, policy: str, seed: int) -> Lesson | None:
    """Oracles have nothing to learn."""
    if not school.training_intervals or policy.startswith("oracle+"):
        return None
    return Lesson(school, policy, seed)
