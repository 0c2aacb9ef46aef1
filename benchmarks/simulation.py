"""Measure the cost of simulations: `python -m benchmarks.simulation`. No broker.

Each row runs in a process of its own. CPU time and memory are those of that process; other work on the
machine does not count, but slows caches, so the best of several runs is shown (`--repeat`).
"""

import argparse
import resource
from multiprocessing import get_context

from splitplace.simulator.result import Result
from splitplace.simulator.running import run
from splitplace.simulator.scenario import Scenario

ROWS = (
    ("rule+earliest-finish", 50, 6.0),
    ("expected-reward+earliest-finish", 50, 6.0),
    ("mab+daso", 50, 6.0),
    ("rule+earliest-finish", 1000, 120.0),
)
"""Policy, hosts, tasks per interval."""


def measured(policy: str, hosts: int, rate: float, intervals: int) -> tuple[Result, float]:
    """Run a simulation; return its result and the peak memory of this process, in MB."""
    result = run(Scenario(hosts=hosts, rate=rate, intervals=intervals), policy)
    return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--intervals", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=list(range(len(ROWS))), help="rows to run, counted from 0"
    )
    arguments = parser.parse_args()
    fresh = get_context("spawn")
    print(f"{'policy':34}{'hosts':>6}{'rate':>6}{'CPU s':>8}{'peak MB':>9}{'decision p50':>14}{'p99 ms':>8}")
    for row in arguments.rows:
        policy, hosts, rate = ROWS[row]
        with fresh.Pool(1, maxtasksperchild=1) as pool:
            runs = pool.starmap(measured, [(policy, hosts, rate, arguments.intervals)] * arguments.repeat, 1)
        result, peak_mb = min(runs, key=lambda one: one[0].cpu_s)
        print(
            f"{policy:34}{hosts:6}{rate:6g}{result.cpu_s:8.2f}{peak_mb:9.0f}"
            f"{result.decision_ms.p50:14.2f}{result.decision_ms.p99:8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
