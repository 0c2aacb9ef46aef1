"""Disturbances of hosts: they move, they fail, they change their speed."""

from functools import partial
from random import Random

from splitplace.simulator.mobility import MobilityTrace
from splitplace.simulator.scenario import Drift, Failures
from splitplace.simulator.simulation import Simulation

MOBILE_SHARE = 0.5
"""Share of the hosts that ride on vehicles; the others stand still (section 3 of the paper)."""


def move(simulation: Simulation, trace: MobilityTrace, random: Random) -> None:
    """Make some hosts follow a vehicle of the trace, each from a random moment, repeating the trace.

    Args:
        simulation: a simulation that has not started.
        trace: the link of each vehicle over time.
        random: draws hosts, vehicles and moments.
    """
    names = list(simulation.world.machines)
    mobile = sorted(random.sample(names, round(MOBILE_SHARE * len(names))))
    riders = [(name, random.randrange(trace.vehicles), random.randrange(trace.steps)) for name in mobile]
    _drive(simulation, trace, riders, 0)


def _drive(
    simulation: Simulation, trace: MobilityTrace, riders: list[tuple[str, int, int]], step: int
) -> None:
    for name, vehicle, offset in riders:
        factor, latency_ms = trace.at(vehicle, step + offset)
        simulation.world.disturb(name, factor, latency_ms)
    following = partial(_drive, simulation, trace, riders, step + 1)
    simulation.events.at((step + 1) * trace.step_ms, following)


def drift(simulation: Simulation, change: Drift, random: Random) -> None:
    """Make some hosts change their speed at one moment."""
    names = list(simulation.world.machines)
    slowed = sorted(random.sample(names, round(change.share * len(names))))
    simulation.events.at(
        change.at_interval * simulation.interval_ms, partial(_drift, simulation, slowed, change.factor)
    )


def _drift(simulation: Simulation, names: list[str], factor: float) -> None:
    for name in names:
        processor = simulation.world.machines[name].processor
        processor.set_score(processor.score * factor)


def fail(simulation: Simulation, failures: Failures, random: Random) -> None:
    """Make every host fail and recover repeatedly, at moments drawn before the simulation starts."""
    up_ms = failures.mean_intervals_between * simulation.interval_ms
    down_ms = failures.mean_intervals_to_repair * simulation.interval_ms
    for name in simulation.world.machines:
        moment_ms = random.expovariate(1 / up_ms)
        while moment_ms < simulation.end_ms:
            simulation.events.at(moment_ms, partial(simulation.fail, name))
            moment_ms += random.expovariate(1 / down_ms)
            simulation.events.at(moment_ms, partial(simulation.recover, name))
            moment_ms += random.expovariate(1 / up_ms)
