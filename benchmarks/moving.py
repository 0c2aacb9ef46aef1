"""Measure what moving the tasks under way would earn: `python -m benchmarks.moving`. Simulations only.

Each row compares, seed by seed, a pair of policies that looks at all tasks under way every so often and moves
some with the same pair that moves none. DASO moves stages as its surrogate says. `earliest-finish` moves what
waits as a second run does: a task that has not begun, to nodes that have no part in it, where it
is predicted to end in `GAIN` of the time that is left to it where it is.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean
from unittest.mock import patch

from typing_extensions import override

from splitplace.commands.live.recorded import drawn
from splitplace.commands.live.run import RATE, TIGHT_SCORE
from splitplace.experiments.catalogue.mixed import MIXED_SCENARIO
from splitplace.experiments.catalogue.own import ALL_ARMS
from splitplace.experiments.statistics import Estimate, compare
from splitplace.planning.kinds import parse_nodes
from splitplace.planning.question import Question
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import (
    PLACEMENT_POLICIES,
    ActiveJob,
    Infeasible,
    PlacementRequest,
    Rearranging,
    place,
)
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.prediction import Job
from splitplace.policies.scoring import mean_reward
from splitplace.simulator import Scenario, run, running
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.calibration import Calibration
from splitplace.simulator.result import TaskRecord
from splitplace.simulator.simulation import Simulation
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE

GAIN = 0.8
"""A waiting task moves if it is predicted to take at most this share of the time that is left to it."""

LIVE_NODES = (
    "2xfast:speed=30.8,memory=211,link=12,2xmedium:speed=17.6,memory=170,link=6,"
    "2xslow:speed=11,memory=130,link=3"
)
"""Those of docs/results/live.md."""
LIVE_CALIBRATION = "docs/results/live/calibration.json"
LIVE_ARMS = frozenset({"whole", "layer", "semantic", "compressed"})
TASKS = 150


class MovingEarliestFinish(EarliestFinish, Rearranging):
    """Takes a task to other nodes while it waits, where it is done sooner there."""

    @override
    def rearrange(
        self, active: Sequence[ActiveJob], cluster: ClusterView, now_ms: float
    ) -> Mapping[str, Mapping[str, str]]:
        moves: dict[str, Mapping[str, str]] = {}
        taken: frozenset[str] = frozenset()
        for task in active:
            here = frozenset(task.nodes.values())
            waits = all(share == 1.0 for share in task.remaining.values())
            shared = task.nodes.keys() != {stage.name for stage in task.job.variant.stages}
            if not waits or shared or not here <= cluster.nodes.keys():
                continue
            left_ms = max(cluster.ready_ms(name, now_ms, due_ms=task.due_ms) for name in here) - now_ms
            grouped, application = task.job.variant, task.job.application
            job = Job(application, application.variant(grouped.name), task.job.batch)
            request = PlacementRequest(task.task, job, now_ms, task.due_ms, here | taken)
            found = place(_ALONE, request, cluster, now_ms)
            if isinstance(found, Infeasible) or (here | taken) & set(found.node_names):
                continue
            if found.prediction.response_ms < GAIN * left_ms and found.job.variant.stages == grouped.stages:
                moves[task.task] = found.nodes
                taken |= frozenset(found.node_names)  # the ledger does not count on it before all have moved
        return moves


_ALONE = EarliestFinish()


def _moving(_random: Random, _alpha: float, replicas: int) -> MovingEarliestFinish:
    return MovingEarliestFinish(replicas)


class MovingSimulation(Simulation):
    """A simulation in which the policy may move what runs at regular times."""

    every_ms = 0.0

    @override
    def run(self) -> None:
        self._look_to_move()
        super().run()

    def _look_to_move(self) -> None:
        self._rearrange()
        self.events.after(self.every_ms, self._look_to_move)


@dataclass(frozen=True, slots=True)
class Setup:
    """Nodes and tasks."""

    name: str
    every_s: float
    """Seconds between two looks."""
    scenario: Scenario
    rate: float | None = None
    """Tasks a second for the nodes of the live page; None = as the scenario says."""

    def tasks(self, seed: int, question: Question) -> Sequence[Arrival]:
        """Return the arrivals of a seed on the nodes of the live page."""
        assert self.rate is not None  # noqa: S101 - asked of these nodes only
        applications = (question.application, *question.more)
        found = drawn(applications, tasks=TASKS, rate=self.rate, score=TIGHT_SCORE, seed=seed)
        return [replace(task, task=f"sim.{task.task}") for task in found]


def setups() -> Sequence[tuple[Setup, Sequence[str]]]:
    """Return what is simulated, with the policies of each."""
    both = ("expected-reward+daso", "expected-reward+earliest-finish")
    mixed = Scenario(**MIXED_SCENARIO, arms=ALL_ARMS, records=True)
    live = Scenario(records=True)
    return [
        *((Setup(f"six nodes, {rate:g} tasks/s", 0.1, live, rate), both) for rate in (RATE, 3 * RATE)),
        (Setup("mixed devices", 0.2, mixed), both),
    ]


def live_question(policy: str) -> Question:
    """Return the nodes, networks and constants of the live page."""
    known = {each.name: each for each in ModelStore(SHIPPED_STORE).usable()[0]}
    first, *more = [known[name] for name in ("resnet50", "fashionmnist", "mnist")]
    return Question(
        cluster=parse_nodes(LIVE_NODES),
        application=first,
        more=tuple(more),
        calibration=Calibration.model_validate_json(Path(LIVE_CALIBRATION).read_bytes()),
        rate=RATE,
        deadline_ms=1000.0,
        policy=policy,
        arms=LIVE_ARMS,
    )


def simulated(setup: Setup, policy: str, seed: int, *, moves: bool) -> Sequence[TaskRecord]:
    """Return the tasks of a simulation."""
    question = live_question(policy)
    workload = tasks = None
    scenario = setup.scenario
    if setup.rate is not None:
        workload, tasks = question.workload, setup.tasks(seed, question)
        scenario = question.scenario(tasks, 0.0)
    with ExitStack() as stack:
        if moves:
            simulation = type("Moving", (MovingSimulation,), {"every_ms": 1000 * setup.every_s})
            stack.enter_context(patch.object(running, "Simulation", simulation))
            stack.enter_context(patch.dict(PLACEMENT_POLICIES, {"earliest-finish": _moving}))
        return run(scenario, policy, seed, workload=workload, tasks=tasks).records or ()


def reward_of(records: Sequence[TaskRecord]) -> float:
    """Return the mean reward, of 100."""
    return 100 * (mean_reward([(each.on_time, each.accuracy) for each in records if each.known]) or 0.0)


def main() -> None:
    """Print a row for each set-up and policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(200, 200 + parser.parse_args().seeds)
    print("set-up | policy | looks every | reward without moves | gained by moves | moves a task")
    for setup, policies in setups():
        for policy in policies:
            still = [simulated(setup, policy, seed, moves=False) for seed in seeds]
            moved = [simulated(setup, policy, seed, moves=True) for seed in seeds]
            without = [reward_of(records) for records in still]
            gained: Estimate = compare([reward_of(records) for records in moved], without).difference
            moves = [each.migrations for records in moved for each in records]
            print(
                f"{setup.name} | {policy} | {setup.every_s:g} s | {fmean(without):.2f} | "
                f"{gained.mean:+.2f} ± {gained.margin or 0:.2f} | {fmean(moves):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
