"""A bound that no policy can exceed: every task alone, on hosts as fast as the fastest one.

No task waits, each stage runs on the fastest host that could hold it, and every link is as fast as the
fastest. Of all variants the one that earns most counts. What a policy earns less is what queues, slower
hosts, and not knowing the work beforehand cost it, so it can hardly reach the bound where hosts are busy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from random import Random

from splitplace.messages.application import INPUT, Application, Fragment, Variant
from splitplace.policies.prediction import Job
from splitplace.policies.scoring import mean, reward
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.departure import drawn
from splitplace.simulator.hosts import Host, machines
from splitplace.simulator.mobility import trace
from splitplace.simulator.oracle import UPPER_BOUND
from splitplace.simulator.running import tasks_of, workload_of
from splitplace.simulator.scenario import Scenario


@dataclass(frozen=True, slots=True)
class _Fastest:
    """The best of all hosts, each on its own."""

    hosts: Sequence[Host]
    compute_factor: float
    memory_factor: float
    bytes_per_ms: float
    replicas: int

    def score(self, fragment: Fragment) -> float:
        """Return the speed of the fastest host that can hold a fragment; 0 without one."""
        able = [
            host.score * host.together
            for host in self.hosts
            if fragment.peak_memory_bytes <= 1e6 * host.memory_megabytes * self.memory_factor
        ]
        return self.compute_factor * self.replicas * max(able, default=0.0)


def highest(scenario: Scenario, seed: int) -> Mapping[str, object]:
    """Return the figures of the bound for one run: its reward and violations, also by application.

    Args:
        scenario: the set-up, whose arms may be chosen.
        seed: that of the run; tasks and their work are the same.

    Raises:
        ValueError: hosts, arrivals or traces cannot be used.
        StoreError: the model store cannot be used.
    """
    workload = workload_of(scenario, UPPER_BOUND)
    applications = {application.name: application for application in workload.applications}
    fastest = _fastest(scenario)
    found: list[tuple[str, float, bool]] = []
    for task in drawn(tasks_of(scenario, workload, f"{seed}"), scenario, Random(f"work {seed}")):
        name = task.arrival.application
        earned, on_time = _best(applications[name], task.arrival, task.slowness, fastest)
        found.append((name, earned, on_time))
    by_application = {
        name: _figures([(earned, on_time) for application, earned, on_time in found if application == name])
        for name in applications
    }
    return _figures([(earned, on_time) for _, earned, on_time in found]) | {"by_application": by_application}


def _figures(found: Sequence[tuple[float, bool]]) -> dict[str, object]:
    return {
        "reward": mean([earned for earned, _ in found]),
        "sla_violation_rate": mean([float(not on_time) for _, on_time in found]),
    }


def _fastest(scenario: Scenario) -> _Fastest:
    preset = scenario.cluster or machines(scenario.machines_name)
    hosts = [host for _, host in preset.expand(scenario.hosts)]
    moving = max((max(factors) for factors in trace(scenario.mobility_trace).factors), default=1.0)
    sped_up = max(1.0, scenario.drift.factor) if scenario.drift else 1.0
    return _Fastest(
        hosts,
        scenario.compute_factor * sped_up,
        scenario.memory_factor,
        1000
        * max(host.megabytes_per_second for host in hosts)
        * scenario.network_factor
        * (max(1.0, moving) if scenario.mobility else 1.0),
        scenario.replicas,
    )


def _best(application: Application, task: Arrival, slowness: float, fastest: _Fastest) -> tuple[float, bool]:
    """Return the highest reward of a task, and whether it is then in time."""
    outcomes = []
    for variant in application.variants:
        least_ms = least_response_ms(Job(application, variant, task.batch), slowness, fastest)
        on_time = least_ms <= task.deadline_ms
        outcomes.append((reward(on_time, variant.accuracy) if least_ms < inf else 0.0, on_time))
    return max(outcomes)


def least_response_ms(job: Job, slowness: float, fastest: _Fastest) -> float:
    """Return a time below which no placement can answer; infinite if no host can hold a fragment."""
    return max(_path_ms(job, path, slowness, fastest) for path in _paths(job.variant))


def _paths(variant: Variant) -> list[list[str]]:
    """Return the names of the stages from the input to each sink."""
    sources = {stage.name: stage.source for stage in variant.stages}
    paths = []
    for sink in variant.sinks:
        path = [sink.name]
        while sources[path[0]] != INPUT:
            path.insert(0, sources[path[0]])
        paths.append(path)
    return paths


def _path_ms(job: Job, path: Sequence[str], slowness: float, fastest: _Fastest) -> float:
    """Return the least time of one path: its micro-batches follow each other through the stages.

    The slowest stage computes all of them. The others at least hold up the first or the last one. Where
    stages may be joined or divided anew, only the work of the whole path is known.
    """
    smallest = min(job.micro_batches)
    every, one, moved = [], [], []
    sent_ratio = 1.0
    for name in path:
        fragment = job.fragments[name]
        score = fastest.score(fragment)
        if score <= 0:
            return inf
        scale = slowness * job.application.reference_score / score
        call_ms, image_ms = fragment.milliseconds_per_call, fragment.milliseconds_per_image
        every.append(scale * (len(job.micro_batches) * call_ms + job.batch * image_ms))
        moved.append(sent_ratio * smallest * fragment.input_bytes_per_image / fastest.bytes_per_ms)
        one.append(scale * (call_ms + smallest * image_ms) + moved[-1])
        sent_ratio = fragment.output_ratio
    most = job.variant.most_stages
    if most is not None:
        return sum(every) / most
    slowest = max(range(len(path)), key=every.__getitem__)
    return every[slowest] + moved[slowest] + sum(one) - one[slowest]
