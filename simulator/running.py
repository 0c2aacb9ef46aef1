"""From a scenario and a policy to a result."""

from collections.abc import Callable, Sequence
from random import Random
from time import perf_counter, process_time
from typing import cast

from policies.pairs import PolicyPair, parse_policy
from policies.placement import PlacementName, PlacementPolicy, placement_policy
from policies.scoring import jain_fairness, mean, quantile
from policies.splitting import PAPER_ARMS, SplitName, SplitPolicy, split_policy
from simulator.arrivals import Arrival, arrivals, replayed
from simulator.hosts import machines
from simulator.result import DecisionTime, Energy, Quality, Result, counts, quality
from simulator.scenario import Scenario
from simulator.simulation import Simulation
from simulator.workload import Workload, restricted
from simulator.world import World

Progress = Callable[[int], None]

_ARMS = {
    "whole": frozenset({"whole"}),
    "compressed": frozenset({"compressed"}),
    "mc": frozenset({"whole", "compressed"}),
    "gillis": frozenset({"layer", "compressed"}),
}


def arms_of(scenario: Scenario, split: str) -> frozenset[str]:
    """What a split policy may choose: as the scenario says, or what its paper lets it choose.

    `whole`, `compressed`, `mc` and `gillis` are about arms of their own; all others choose as the SplitPlace
    paper does, between layers and branches.
    """
    return frozenset(scenario.arms) if scenario.arms is not None else _ARMS.get(split, PAPER_ARMS)


def run(
    scenario: Scenario,
    policy: str = "rule+earliest-finish",
    seed: int = 0,
    *,
    progress: Progress | None = None,
) -> Result:
    """Simulate.

    Args:
        scenario: the set-up.
        policy: split and placement, such as `mab+daso`.
        seed: of all random numbers. The same one gives the same arrivals whatever the policy, so that
            policies can be compared in pairs; and the same result but for `decision_ms`, `wall_s`, `cpu_s`.
        progress: is called with the number of each interval that is over.

    Raises:
        ValueError: no such policy, or hosts, arrivals or traces that cannot be used.
        bus.store.StoreError: the model store cannot be used.
    """
    began_s, began_cpu_s = perf_counter(), process_time()
    pair = parse_policy(policy)
    workload = restricted(scenario.workload(), arms_of(scenario, pair.split))
    split = split_policy(cast("SplitName", pair.split), seed=seed)
    placement = placement_policy(cast("PlacementName", pair.placement), seed=seed)
    simulation = _simulation(scenario, workload, split, placement, seed=seed, progress=progress)
    simulation.run()
    timings = (perf_counter() - began_s, process_time() - began_cpu_s)
    return _result(scenario, workload, pair, simulation, seed=seed, timings=timings)


def _tasks(scenario: Scenario, workload: Workload, seed: int) -> Sequence[Arrival]:
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
    split: SplitPolicy,
    placement: PlacementPolicy,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Simulation:
    preset = machines(scenario.machines_name)
    world = World(
        preset.expand(scenario.hosts),
        broker_megabytes_per_second=preset.broker.megabytes_per_second,
        discipline=scenario.discipline,
        through_broker=scenario.through_broker,
        compute_factor=scenario.compute_factor,
        network_factor=scenario.network_factor,
        memory_factor=scenario.memory_factor,
        extra_latency_ms=scenario.extra_latency_ms,
    )
    return Simulation(
        scenario,
        workload,
        world,
        _tasks(scenario, workload, seed),
        split=split,
        placement=placement,
        random=Random(f"work {seed}"),
        progress=progress,
    )


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
    everything = quality(records, interval_ms)
    hosts = list(simulation.world.machines.values())
    usages = [host.processor.measure() for host in hosts]
    joules = sum([usage.joules for usage in usages])
    idle_joules = sum([host.processor.usage.powered_ms / 1000 * host.host.power_watts(0.0) for host in hosts])
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
                [record for record in records if record.application == application.name], interval_ms
            )
            for application in workload.applications
        },
        wall_s=timings[0],
        cpu_s=timings[1],
        records=tuple(records) if scenario.records else None,
    )
