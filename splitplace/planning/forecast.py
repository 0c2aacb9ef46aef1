"""What simulations over seeds say of a question: hit rate and response, with intervals.

Each seed has its own arrivals, its own noise, and its own speed of the nodes whose speed is in doubt: from
`1 - doubt` to `1 + doubt` in equal steps over the seeds, all kinds together. An interval holds nine of ten
simulations, and is widened by what the calibration got wrong on tasks that it was not fitted to.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf

from splitplace.planning.question import Question
from splitplace.policies.scoring import mean, mean_reward, quantile
from splitplace.simulator.result import TaskRecord
from splitplace.simulator.running import run

COVERAGE = 0.9
"""Share of the simulations that an interval holds."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A prediction with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected. Responses in ms; None where nothing was answered."""

    hit_rate: Figure
    reward: float
    p50_ms: Figure | None
    p95_ms: Figure | None
    accuracy: float | None
    decisions: tuple[tuple[str, float], ...]
    """Share of the tasks by variant, the most frequent first; `none` for those that were refused."""
    enough_ms: float | None
    """Time within which the wanted share of tasks of every simulation was answered; None if it was not."""
    tasks: int
    seeds: int


@dataclass(frozen=True, slots=True)
class _Run:
    """The tasks of one simulation that count."""

    records: tuple[TaskRecord, ...]

    @property
    def hit_rate(self) -> float:
        return mean([record.on_time for record in self.records]) or 0.0

    def response_ms(self, share: float) -> float | None:
        """Return a quantile of the responses of answered tasks."""
        return quantile([r.response_ms for r in self.records if r.response_ms is not None], share)


def simulate(question: Question, seed: int) -> tuple[TaskRecord, ...]:
    """Return the tasks of one simulation, without the warm-up."""
    tasks = question.arrivals(seed)
    place = (seed % question.seeds + 0.5) / question.seeds if question.seeds > 1 else 0.5
    scenario = question.scenario(tasks, 2 * place - 1)
    result = run(scenario, question.policy, seed, workload=question.workload, tasks=tasks)
    counted = {task.task for task in tasks[question.warm_up :]}
    return tuple(record for record in result.records or () if record.task in counted)


Simulator = Callable[[Question], Iterable[tuple[TaskRecord, ...]]]
"""Runs all simulations of a question, here or in other processes."""


def in_turn(question: Question) -> Iterable[tuple[TaskRecord, ...]]:
    """Run the simulations of a question one after the other."""
    return (simulate(question, seed) for seed in range(question.seeds))


def forecast(question: Question, simulator: Simulator = in_turn) -> Forecast:
    """Simulate a question over seeds. Raises ValueError for a policy that is not known."""
    return _summed([_Run(records) for records in simulator(question)], question)


def _summed(runs: Sequence[_Run], question: Question) -> Forecast:
    records = [record for each in runs for record in each.records]
    check = question.calibration.check
    error = 0.0 if check is None else check.hit_rate_error
    hits = _figure([each.hit_rate for each in runs])
    assert hits is not None  # noqa: S101 - there is a seed at least
    decisions = Counter(record.variant or "none" for record in records)
    p50_ms = _widened(_figure(each.response_ms(0.5) for each in runs), _ratio(question, "p50"))
    p95_ms = _widened(_figure(each.response_ms(0.95) for each in runs), _ratio(question, "p95"))
    return Forecast(
        hit_rate=Figure(hits.value, max(0.0, hits.low - error), min(1.0, hits.high + error)),
        reward=mean_reward([(record.on_time, record.accuracy) for record in records]) or 0.0,
        p50_ms=p50_ms,
        p95_ms=_not_below(p95_ms, p50_ms),
        accuracy=mean([record.accuracy for record in records if record.status == "answered"]),
        decisions=tuple((name, count / len(records)) for name, count in decisions.most_common()),
        enough_ms=_enough_ms(runs, question.wanted),
        tasks=len(records),
        seeds=len(runs),
    )


def _enough_ms(runs: Iterable[_Run], wanted: float) -> float | None:
    """Return the greatest of the quantiles of the response; a task without an answer never came."""
    found = 0.0
    for each in runs:
        responses = sorted([inf if r.response_ms is None else r.response_ms for r in each.records])
        found = max(
            found, responses[min(len(responses) - 1, ceil(wanted * len(responses)))] if responses else inf
        )
    return found if found < inf else None


def _figure(values: Iterable[float | None]) -> Figure | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = (quantile(known, share) for share in ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
    assert low is not None and high is not None  # noqa: PT018, S101 - there are values
    return Figure(sum(known) / len(known), low, high)


def _ratio(question: Question, name: str) -> float:
    """Return live over simulated response of the calibration's own check; 1 where there was none."""
    check = question.calibration.check
    if check is None:
        return 1.0
    live, simulated = (
        (check.live_p50_ms, check.simulated_p50_ms)
        if name == "p50"
        else (check.live_p95_ms, check.simulated_p95_ms)
    )
    return live / simulated if live > 0 and simulated > 0 else 1.0


def _widened(figure: Figure | None, ratio: float) -> Figure | None:
    """Widen an interval to where the calibration's own error would put it."""
    if figure is None:
        return None
    return Figure(figure.value, figure.low * min(1.0, ratio), figure.high * max(1.0, ratio))


def _not_below(figure: Figure | None, smaller: Figure | None) -> Figure | None:
    """Raise the ends of an interval to those of a smaller quantile, whose calibration erred by more."""
    if figure is None or smaller is None:
        return figure
    return Figure(figure.value, max(figure.low, smaller.low), max(figure.high, smaller.high))
