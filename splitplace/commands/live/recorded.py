"""Recorded arrivals: a CSV file with absolute deadlines, so that every run has the same tasks."""

import csv
from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from random import Random

from splitplace.commands.demo.workload import largest_batch
from splitplace.messages.application import Application
from splitplace.simulator.arrivals import Arrival

LEAST_MS = 60.0
"""Shortest part of a deadline: broker, codecs and event loops."""
TIGHT = 2.0
"""A tight deadline over the described time of the lightest variant on the slowest kind of node."""
LOOSEST = 12.0
"""Deadlines lie between a tight one and so many times that, drawn log-uniformly."""


def drawn(
    applications: Sequence[Application], *, tasks: int, rate: float, score: float, seed: int
) -> list[Arrival]:
    """Draw arrivals, batches and deadlines.

    Args:
        applications: what tasks ask for, each as often.
        tasks: how many.
        rate: tasks a second.
        score: speed for which deadlines are tight, in GFLOP/s. It makes them absolute: no run measures it.
        seed: of all random numbers.
    """
    random, at_ms, found = Random(f"live {seed}"), 0.0, []
    for number in range(tasks):
        at_ms += random.expovariate(rate) * 1000
        application = random.choice(applications)
        batch = round(_log_uniform(random, 1, largest_batch(application)))
        work = min(
            sum(application.fragment(stage.fragment).milliseconds_per_image for stage in variant.stages)
            for variant in application.variants
        )
        tight_ms = LEAST_MS + TIGHT * batch * work * application.reference_score / score
        deadline_ms = round(tight_ms * _log_uniform(random, 1.0, LOOSEST), 1)
        found.append(Arrival(f"t{number:04d}", round(at_ms, 1), application.name, batch, deadline_ms))
    return found


def write_arrivals(arrivals: Sequence[Arrival], path: Path) -> None:
    """Write arrivals as `splitplace simulate --replay` reads them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("at_s", "application", "batch", "deadline_s"))
        for task in arrivals:
            rows.writerow(
                (f"{task.at_ms / 1000:.4f}", task.application, task.batch, f"{task.deadline_ms / 1000:.4f}")
            )


def _log_uniform(random: Random, least: float, greatest: float) -> float:
    return exp(random.uniform(log(least), log(max(least, greatest))))
