"""Draw when tasks arrive and what they ask for, before a simulation begins, from one seed."""

import csv
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from pathlib import Path
from random import Random
from typing import Literal

from splitplace.errors import SplitPlaceError
from splitplace.simulator.workload import Workload

ArrivalPattern = Literal["poisson", "bursty", "intervals"]

BURST_FACTOR = 4.0
"""`bursty`: ratio of the rate in a burst to that between bursts."""

BURST_SHARE = 0.2
"""`bursty`: share of the time that is in bursts."""

BURST_INTERVALS = 5.0
"""`bursty`: mean length of a burst, in intervals."""

MAX_REPLAYED = 1_000_000
"""Greatest number of tasks in a replayed file."""


class ReplayError(SplitPlaceError, ValueError):
    """The file of arrivals cannot be used."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A task as a sensor sends it."""

    task: str
    at_ms: float
    application: str
    batch: int
    """Number of items (see `splitplace.simulator.workload`)."""
    deadline_ms: float


def arrivals(
    workload: Workload,
    random: Random,
    *,
    pattern: ArrivalPattern,
    rate: float,
    intervals: int,
    interval_ms: float,
    mix: Mapping[str, float] | None = None,
    deadline_scale: float = 1.0,
) -> list[Arrival]:
    """Draw all tasks of a simulation, in order of time.

    Args:
        workload: the applications, and the ranges to draw from.
        random: source of random numbers.
        pattern: `poisson`: at any moment; `bursty`: a Poisson process whose rate switches between two values
            (MMPP), with the same mean; `intervals`: all of an interval at its beginning, as in the paper.
        rate: mean number of tasks per interval.
        intervals: number of intervals in which tasks arrive.
        interval_ms: length of an interval.
        mix: weight of each application; None = equal weights.
        deadline_scale: factor on all deadlines.
    """
    names = [application.name for application in workload.applications]
    weights = list(accumulate((mix or dict.fromkeys(names, 1.0)).get(name, 0.0) for name in names))
    tasks = []
    for number, at_ms in enumerate(_moments(random, pattern, rate, intervals, interval_ms)):
        name = names[bisect_right(weights, random.random() * weights[-1])]
        shortest, longest = workload.deadline_intervals[name]
        tasks.append(
            Arrival(
                task=f"sim.{number}",
                at_ms=at_ms,
                application=name,
                batch=random.randint(*workload.batch),
                deadline_ms=random.randint(shortest, longest) * interval_ms * deadline_scale,
            )
        )
    return tasks


def _moments(
    random: Random, pattern: ArrivalPattern, rate: float, intervals: int, interval_ms: float
) -> Iterator[float]:
    end_ms = intervals * interval_ms
    if rate <= 0:
        return
    if pattern == "intervals":
        for moment_ms in _process(random, rate / interval_ms, 0.0, end_ms):
            yield moment_ms // interval_ms * interval_ms
    elif pattern == "poisson":
        yield from _process(random, rate / interval_ms, 0.0, end_ms)
    else:
        calm = rate / interval_ms / (1 - BURST_SHARE + BURST_SHARE * BURST_FACTOR)
        burst_ms = BURST_INTERVALS * interval_ms
        began_ms, bursting = 0.0, random.random() < BURST_SHARE
        while began_ms < end_ms:
            mean_ms = burst_ms if bursting else burst_ms * (1 - BURST_SHARE) / BURST_SHARE
            ends_ms = min(end_ms, began_ms + random.expovariate(1 / mean_ms))
            yield from _process(random, calm * (BURST_FACTOR if bursting else 1.0), began_ms, ends_ms)
            began_ms, bursting = ends_ms, not bursting


def _process(random: Random, per_ms: float, begins_ms: float, ends_ms: float) -> Iterator[float]:
    moment_ms = begins_ms + random.expovariate(per_ms)
    while moment_ms < ends_ms:
        yield moment_ms
        moment_ms += random.expovariate(per_ms)


def replayed(path: Path, workload: Workload) -> list[Arrival]:
    """Read tasks from a CSV file with the columns `at_s,application,batch,deadline_s`.

    Args:
        path: the file.
        workload: the applications that tasks may name.

    Raises:
        ReplayError: the file cannot be read, or a line is not valid.
    """
    known = {application.name for application in workload.applications}
    tasks: list[Arrival] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file)):
                if number >= MAX_REPLAYED:
                    raise ReplayError(f"{path}: more than {MAX_REPLAYED} tasks")
                tasks.append(_replayed_task(number, row, known, workload))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReplayError(f"{path}: cannot be read: {error}") from error
    except KeyError as error:
        raise ReplayError(f"{path}: there is no column {error}") from error
    except (ValueError, TypeError) as error:
        if isinstance(error, ReplayError):
            raise
        raise ReplayError(f"{path}: line {len(tasks) + 2}: {error}") from error
    return sorted(tasks, key=lambda task: task.at_ms)


def _replayed_task(number: int, row: Mapping[str, str], known: set[str], workload: Workload) -> Arrival:
    task = Arrival(
        task=f"sim.{number}",
        at_ms=1000 * float(row["at_s"]),
        application=row["application"],
        batch=int(row["batch"]),
        deadline_ms=1000 * float(row["deadline_s"]),
    )
    if task.application not in known:
        raise ValueError(f"no application {task.application!r}, only {', '.join(sorted(known))}")
    least, most = 1, max(1024, workload.batch[1])
    if not (0 <= task.at_ms < inf and 0 < task.deadline_ms < inf and least <= task.batch <= most):
        raise ValueError("a time, deadline or batch out of range")
    return task
