"""From a scenario and a policy to a result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from time import perf_counter, process_time
from typing import cast

from splitplace.policies.pairs import PolicyPair, parse_policy
from splitplace.policies.placement import PlacementName, PlacementPolicy, placement_policy
from splitplace.policies.scoring import jain_fairness, mean, quantile
from splitplace.policies.splitting import PAPER_ARMS, MabMode, SplitName, SplitPolicy, split_policy
from splitplace.policies.state import State
from splitplace.simulator import disturbances
from splitplace.simulator.arrivals import Arrival, arrivals, replayed
from splitplace.simulator.hosts import machines
from splitplace.simulator.mobility import trace
from splitplace.simulator.oracle import ORACLE, UPPER_BOUND, Oracle, sight_into
from splitplace.simulator.result import DecisionTime, Energy, Quality, Result, counts, quality
from splitplace.simulator.scenario import Scenario
from splitplace.simulator.simulation import Simulation
from splitplace.simulator.workload import Workload, restricted, slowed
from splitplace.simulator.world import Surroundings, World

IntervalCallback = Callable[[SplitPolicy, PlacementPolicy, int], None]
"""Called at the end of each interval with the policies and the number of intervals so far."""


@dataclass(frozen=True)
class Learnt:
    """States of the policies after training."""

    splitter: State
    placement: State


def arms_of(scenario: Scenario, split: str) -> frozenset[str]:
    """Return the variants or kinds that a split policy may choose.

    The scenario says which; else a policy that is defined by kinds has those, and all others choose as the
    SplitPlace paper does, between layers and branches.
    """
    if scenario.arms is not None:
        return frozenset(scenario.arms)
    if split == UPPER_BOUND:
        return frozenset(PAPER_ARMS)
    return frozenset(_split(split, "", training=False).kinds or PAPER_ARMS)


def run(
    scenario: Scenario,
    policy: str = "expected-reward+earliest-finish",
    seed: int = 0,
    *,
    learnt: Learnt | None = None,
    watch: IntervalCallback | None = None,
    workload: Workload | None = None,
    tasks: Sequence[Arrival] | None = None,
) -> Result:
    """Simulate.

    Args:
        scenario: the set-up.
        policy: split and placement, such as `mab+daso`.
        seed: of all random numbers. The same one gives the same arrivals whatever the policy, so that
            policies can be compared in pairs; and the same result but for `decision_ms`, `wall_s`, `cpu_s`.
        learnt: what the policies begin with; without it they train first for as long as the scenario says.
        watch: is called at the end of each interval, for progress or to see the learnt state.
        workload: applications, instead of those of the scenario's profile.
        tasks: what arrives, instead of what the scenario draws.

    Raises:
        ValueError: no such policy, or hosts, arrivals or traces that cannot be used.
        StoreError: the model store cannot be used.
    """
    began_s, began_cpu_s = perf_counter(), process_time()
    pair = parse_policy(policy, more_splits=(ORACLE,))
    workload = workload_of(scenario, pair.split, workload)
    if learnt is None and scenario.training_intervals:
        learnt = train(scenario, policy, seed)
    simulation = _simulation(scenario, workload, pair, f"{seed}", watch=watch, tasks=tasks)
    if learnt is not None:
        simulation.splitter.restore(learnt.splitter)
        simulation.placement.restore(learnt.placement)
    simulation.run()
    timings = (perf_counter() - began_s, process_time() - began_cpu_s)
    return _result(scenario, workload, pair, simulation, seed=seed, timings=timings)


def experience(
    scenario: Scenario,
    policy: str,
    seed: str,
    *,
    placement: PlacementPolicy | None = None,
    prepare: Callable[[Simulation], None] = lambda _: None,
    workload: Workload | None = None,
    tasks: Sequence[Arrival] | None = None,
) -> Simulation:
    """Run a simulation and return it, for callers that need the learnt policies rather than a result.

    Args:
        scenario: the set-up.
        policy: split and placement.
        seed: of all random numbers.
        placement: replaces the one in `policy`.
        prepare: called with the simulation before it runs.
        workload: applications, instead of those of the scenario's profile.
        tasks: what arrives, instead of what the scenario draws.

    Raises:
        ValueError: as `run`.
    """
    pair = parse_policy(policy)
    workload = workload_of(scenario, pair.split, workload)
    simulation = _simulation(scenario, workload, pair, seed, placement=placement, tasks=tasks)
    prepare(simulation)
    simulation.run()
    return simulation


def train(scenario: Scenario, policy: str, seed: int = 0, *, watch: IntervalCallback | None = None) -> Learnt:
    """Train policies in a simulation with other arrivals, as in section 6.3 of the paper.

    Args:
        scenario: the set-up; `training_intervals` is the length of the training.
        policy: split and placement.
        seed: that of the run to follow.
        watch: as in `run`.

    Raises:
        ValueError: as `run`.
    """
    pair = parse_policy(policy, more_splits=(ORACLE,))
    workload = workload_of(scenario, pair.split)
    training_scenario = scenario.model_copy(
        update={"intervals": scenario.training_intervals, "drift": None, "drain_intervals": 0}
    )
    simulation = _simulation(
        training_scenario, workload, pair, f"training {seed}", training=True, watch=watch
    )
    simulation.run()
    return Learnt(simulation.splitter.state(), simulation.placement.state())


def _split(name: str, seed: str, *, training: bool) -> SplitPolicy:
    if name == ORACLE:
        return Oracle()
    mode: MabMode = "training" if training else "running"
    drawn = Random(f"split {seed}").getrandbits(32)
    return split_policy(cast("SplitName", name), seed=drawn, mab_mode=mode)


def _placement(name: str, seed: str, scenario: Scenario) -> PlacementPolicy:
    drawn = Random(f"placement {seed}").getrandbits(32)
    replicas = scenario.replicas
    return placement_policy(cast("PlacementName", name), seed=drawn, alpha=scenario.alpha, replicas=replicas)


def workload_of(scenario: Scenario, split: str, given: Workload | None = None) -> Workload:
    """Return the applications with the arms that may be chosen, as slow as the calibration says."""
    workload = restricted(scenario.workload() if given is None else given, arms_of(scenario, split))
    known = scenario.calibration
    return workload if known is None else slowed(workload, known.work_factor)


def tasks_of(scenario: Scenario, workload: Workload, seed: str) -> Sequence[Arrival]:
    """Return what arrives in a run of a seed."""
    if scenario.replay is not None:
        return replayed(scenario.replay, workload)
    return arrivals(
        workload,
        Random(f"arrivals {seed}"),
        pattern=scenario.pattern,
        rate=scenario.rate,
        intervals=scenario.intervals,
        interval_ms=scenario.interval_ms(workload),
        mix=scenario.mix,
        deadline_scale=scenario.deadline_scale,
    )


def _simulation(
    scenario: Scenario,
    workload: Workload,
    pair: PolicyPair,
    seed: str,
    *,
    training: bool = False,
    watch: IntervalCallback | None = None,
    placement: PlacementPolicy | None = None,
    tasks: Sequence[Arrival] | None = None,
) -> Simulation:
    """Set up a simulation, with everything that will happen to its hosts.

    `placement` replaces the one in `pair`, `tasks` those that the scenario draws.
    """
    preset = scenario.cluster or machines(scenario.machines_name)
    surroundings = Surroundings(
        broker_megabytes_per_second=preset.broker.megabytes_per_second,
        discipline=scenario.discipline,
        through_broker=scenario.through_broker,
        compute_factor=scenario.compute_factor,
        network_factor=scenario.network_factor,
        memory_factor=scenario.memory_factor,
        extra_latency_ms=scenario.extra_latency_ms,
    )
    split = _split(pair.split, seed, training=training)
    placement = placement or _placement(pair.placement, seed, scenario)
    simulation = Simulation(
        scenario,
        workload,
        World(preset.expand(scenario.hosts), surroundings),
        tasks_of(scenario, workload, seed) if tasks is None else tasks,
        split=split,
        placement=placement,
        random=Random(f"work {seed}"),
        at_interval=partial(watch, split, placement) if watch else None,
    )
    if isinstance(split, Oracle):
        if scenario.loading is not None:
            raise ValueError("the policy oracle takes everything as loaded: leave out `loading`")
        split.look_ahead = sight_into(simulation)
    if scenario.mobility:
        disturbances.move(simulation, trace(scenario.mobility_trace), Random(f"mobility {seed}"))
    if scenario.drift is not None:
        disturbances.drift(simulation, scenario.drift, Random(f"drift {seed}"))
    if scenario.failures is not None:
        disturbances.fail(simulation, scenario.failures, Random(f"failures {seed}"))
    return simulation


def _result(
    scenario: Scenario,
    workload: Workload,
    pair: PolicyPair,
    simulation: Simulation,
    *,
    seed: int,
    timings: tuple[float, float],
) -> Result:
    interval_ms = scenario.interval_ms(workload)
    records = simulation.records
    everything = quality(records, interval_ms, workload.applications)
    hosts = list(simulation.world.machines.values())
    usages = simulation.usages
    joules = sum([usage.joules for usage in usages])
    idle_joules = sum(
        [
            usage.powered_ms / 1000 * host.host.power_watts(0.0)
            for usage, host in zip(usages, hosts, strict=True)
        ]
    )
    hours = scenario.intervals * interval_ms / 3_600_000
    cost = hours * sum([host.host.dollars_per_hour for host in hosts])
    tasks = counts(records)
    return Result(
        **{name: getattr(everything, name) for name in Quality.model_fields},
        policy="+".join(pair),
        seed=seed,
        hosts=scenario.hosts,
        intervals=scenario.intervals,
        rate=scenario.rate,
        fairness=jain_fairness([usage.busy_ms for usage in usages]),
        energy_mj_per_interval=Energy(
            total=joules / 1e6 / scenario.intervals,
            above_idle=(joules - idle_joules) / 1e6 / scenario.intervals,
        ),
        cost_usd=cost,
        cost_usd_per_task=cost / tasks.answered if tasks.answered else None,
        decision_ms=DecisionTime(
            p50=quantile(simulation.decision_ms, 0.5), p99=quantile(simulation.decision_ms, 0.99)
        ),
        tasks=tasks,
        explored=sum(record.explored for record in records),
        migrations=sum(record.migrations for record in records),
        attempts=mean([record.attempts for record in records]),
        objective=mean(simulation.objectives),
        by_application={
            application.name: quality(
                [record for record in records if record.application == application.name],
                interval_ms,
                [application],
            )
            for application in workload.applications
        },
        wall_s=timings[0],
        cpu_s=timings[1],
        records=tuple(records) if scenario.records else None,
    )
