"""Compare what decides what nodes load ahead, where memory binds: `python -m benchmarks.loading`. No broker.

The devices and the load of the page `mixed`, but hosts begin with nothing loaded. Each seed is run with both
kinds of loading and the same tasks, and with everything loaded everywhere: loading can hardly bring more.
Intervals are of 95 %, by Student's t over the seeds.
"""

import argparse
from collections.abc import Mapping
from random import Random
from typing import Any, get_args

from splitplace.experiments.catalogue.mixed import MIXED_SCENARIO
from splitplace.experiments.catalogue.own import ALL_ARMS
from splitplace.experiments.statistics import compare, estimate
from splitplace.policies.placement.loading import LoadingName
from splitplace.simulator import Scenario, run
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.running import tasks_of, workload_of

SPLIT = "expected-reward"
MOSTLY = 0.8
"""Share of the network that most tasks are for."""

Mix = Mapping[str, float]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--intervals", type=int, default=150)
    parser.add_argument("--cases", nargs="*")
    options = parser.parse_args()
    names = [application.name for application in workload_of(_scenario("rarest"), SPLIT).applications]
    equal = dict.fromkeys(names, 1.0)
    cases: dict[str, tuple[dict[str, Any], tuple[Mix, ...]]] = {
        "as on the page mixed": ({}, (equal,)),
        "half the memory": ({"memory_factor": 0.5}, (equal,)),
        "half the memory, mostly cifar100": ({"memory_factor": 0.5}, (_mostly(names, "cifar100"),)),
        "the same at twice the rate": (
            {"memory_factor": 0.5, "rate": 10},
            (_mostly(names, "cifar100"),),
        ),
        "half the memory, mostly resnet50": ({"memory_factor": 0.5}, (_mostly(names, "resnet50"),)),
        "half the memory, cifar100 then fashionmnist": (
            {"memory_factor": 0.5},
            (_mostly(names, "cifar100"), _mostly(names, "fashionmnist")),
        ),
    }
    print(f"{'case':44}{'figure':>8}{'rarest':>16}{'demand':>16}{'difference':>16}{'all loaded':>16}")
    for case, (changes, mixes) in cases.items():
        if options.cases and case not in options.cases:
            continue
        found: dict[str, dict[LoadingName | None, list[float]]] = {"reward": {}, "hit": {}}
        for loading in (*get_args(LoadingName), None):
            scenario = _scenario(loading, intervals=options.intervals, **changes)
            for seed in range(1, options.seeds + 1):
                result = run(scenario, f"{SPLIT}+earliest-finish", seed, tasks=_tasks(scenario, mixes, seed))
                found["reward"].setdefault(loading, []).append(100 * (result.reward or 0.0))
                hits = 1 - (result.sla_violation_rate or 0.0)
                found["hit"].setdefault(loading, []).append(100 * hits)
        for figure, by_loading in found.items():
            rarest, demand = by_loading["rarest"], by_loading["demand"]
            difference = compare(demand, rarest).difference
            figures = (estimate(rarest), estimate(demand), difference, estimate(by_loading[None]))
            shown = "".join(f"{f'{each.mean:.2f} ± {each.margin or 0:.2f}':>16}" for each in figures)
            print(f"{case:44}{figure:>8}{shown}", flush=True)


def _scenario(loading: LoadingName | None, **changes: Any) -> Scenario:  # noqa: ANN401 - settings
    settings = {**MIXED_SCENARIO, "arms": ALL_ARMS, "training_intervals": 0, "loading": loading, **changes}
    return Scenario.model_validate(settings)


def _mostly(names: list[str], name: str) -> Mix:
    others = (1 - MOSTLY) / (len(names) - 1)
    return {each: MOSTLY if each == name else others for each in names}


def _tasks(scenario: Scenario, mixes: tuple[Mix, ...], seed: int) -> list[Arrival]:
    """Draw tasks whose mix changes at equal times."""
    workload = workload_of(scenario, SPLIT)
    tasks = list(tasks_of(scenario, workload, f"{seed}"))
    if len(mixes) == 1:
        return list(tasks_of(scenario.model_copy(update={"mix": mixes[0]}), workload, f"{seed}"))
    end_ms = scenario.intervals * scenario.interval_ms(workload)
    random = Random(f"mix {seed}")
    changed = []
    for task in tasks:
        mix = mixes[int(len(mixes) * task.at_ms / end_ms)]
        (name,) = random.choices(list(mix), list(mix.values()))
        changed.append(Arrival(task.task, task.at_ms, name, task.batch, task.deadline_ms))
    return changed


if __name__ == "__main__":
    main()
