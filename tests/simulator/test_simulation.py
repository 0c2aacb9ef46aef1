from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random

import pytest

from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import ActiveJob, PlacementPolicy, Rearranging
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.placement.round_robin import RoundRobin
from splitplace.policies.splitting import split_policy
from splitplace.services.gateway.task import RetryRules
from splitplace.simulator import Drift, Failures, Result, Scenario, run
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.departure import DISPATCH_MS
from splitplace.simulator.hosts import machines
from splitplace.simulator.simulation import Simulation
from splitplace.simulator.workload import restricted
from splitplace.simulator.world import Surroundings, World

SMALL = Scenario(profile="paper-bzip2", hosts=8, intervals=6, rate=2, records=True)
"""Enough for every kind of event, little enough for a fraction of a second."""


def check(result: Result) -> None:
    """What holds of every run."""
    records = result.records
    assert records is not None
    tasks = result.tasks
    assert tasks.arrived == len(records) == len({record.task for record in records})
    assert tasks.arrived == (
        tasks.answered
        + tasks.refused
        + tasks.failed
        + tasks.expired
        + tasks.overdue_unfinished
        + tasks.unfinished
    )
    assert sum(result.decisions.values()) == tasks.arrived
    assert sum(part.tasks for part in result.by_application.values()) == tasks.arrived - tasks.unfinished
    for record in records:
        if record.status == "answered":
            parts = (record.wait_ms, record.transfer_ms, record.compute_ms)
            assert all(part is not None and part >= 0 for part in parts)
            assert sum(part or 0.0 for part in parts) == pytest.approx(record.response_ms)
            assert record.on_time == ((record.response_ms or 0.0) <= record.deadline_ms)
        else:
            assert (record.response_ms, record.accuracy, record.on_time) == (None, 0.0, False)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "interval", "pattern": "intervals"},
        {"discipline": "deadline"},
        {"rules": "paper", "failures": Failures(mean_intervals_between=3.0)},
        {"mode": "interval", "rules": "paper", "failures": Failures(mean_intervals_between=6.0)},
        {"failures": Failures(mean_intervals_between=3.0), "pattern": "bursty"},
        {"drift": Drift(at_interval=2, factor=0.2), "through_broker": True},
        {"memory_factor": 0.3, "network_factor": 0.5, "compute_factor": 0.5},
    ],
)
@pytest.mark.parametrize("policy", ["random+random", "rule+earliest-finish"])
def test_no_task_is_lost_and_every_record_adds_up(changes: dict[str, object], policy: str) -> None:
    result = run(SMALL.model_copy(update=changes), policy)
    check(result)
    assert result.tasks.arrived > 0


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    first, again, other = (run(SMALL, "random+random", seed).figures() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_policies_are_asked_about_the_same_tasks() -> None:
    one, other = (run(SMALL, policy).records or () for policy in ("layer+random", "semantic+random"))
    drawn = [
        sorted((r.task, r.arrived_ms, r.deadline_ms, r.batch) for r in records) for records in (one, other)
    ]
    assert drawn[0] == drawn[1]


def test_decisions_wait_for_the_next_interval_in_interval_mode() -> None:
    scenario = SMALL.model_copy(update={"mode": "interval"})
    records = run(scenario, "semantic+random").records or ()
    interval_ms = scenario.interval_ms(scenario.workload())
    begun = [
        (record.arrived_ms + (record.wait_ms or 0.0) - DISPATCH_MS) for record in records if record.wait_ms
    ]
    assert begun
    assert [moment % interval_ms for moment in begun] == pytest.approx([0.0] * len(begun))


def test_tasks_arrive_at_the_beginning_of_intervals_and_are_decided_there_as_in_the_paper() -> None:
    scenario = SMALL.model_copy(update={"mode": "interval", "pattern": "intervals"})
    records = run(scenario, "semantic+random").records or ()
    assert {record.wait_ms for record in records if record.status == "answered"} == {DISPATCH_MS}


def test_idle_hosts_use_what_the_paper_says() -> None:
    result = run(Scenario(rate=0, intervals=1, mobility=False))
    assert result.energy_mj_per_interval.total == pytest.approx(1.103, abs=0.0005)
    assert result.energy_mj_per_interval.above_idle == 0.0
    assert result.reward is None
    assert result.response_intervals.mean is None


def test_fifty_hosts_cost_what_their_prices_say() -> None:
    # 20 x .0944 + 10 x (.148 + .189 + .296) dollars an hour.
    assert run(Scenario(rate=0, intervals=12, mobility=False)).cost_usd == pytest.approx(8.218)


def test_tasks_whose_deadline_passed_are_violations_although_they_still_run() -> None:
    result = run(SMALL.model_copy(update={"work_scale": 20.0, "intervals": 12}), "layer+random")
    tasks = result.tasks
    assert tasks.answered == 0
    assert tasks.overdue_unfinished > 0
    assert result.sla_violation_rate == 1.0
    assert result.reward == 0.0


def test_late_tasks_expire_after_the_grace_and_never_under_the_rules_of_the_paper() -> None:
    slow = SMALL.model_copy(update={"work_scale": 20.0, "deadline_scale": 0.2, "intervals": 30})
    result = run(slow, "layer+random")
    assert result.tasks.expired > 0
    late = run(slow.model_copy(update={"rules": "paper"}), "layer+random")
    assert late.tasks.expired == 0
    assert late.tasks.overdue_unfinished > 0


def test_the_rules_of_the_product_keep_their_proportion_to_the_deadlines() -> None:
    scenario = Scenario()
    workload = scenario.workload()
    longest_ms = max(application.default_deadline_ms for application in workload.applications)
    live, rules = RetryRules(), scenario.retry_rules(workload)
    assert rules.grace_ms / longest_ms == live.grace_ms / 1000
    assert rules.stall_ms / longest_ms == live.stall_ms / 1000
    assert (rules.max_attempts, rules.settle_ms) == (live.max_attempts, live.settle_ms)


def set_up(placement: PlacementPolicy, *tasks: Arrival, arm: str = "layer", **changes: object) -> Simulation:
    """Eight hosts, a few tasks, nothing that disturbs them."""
    usual = {"profile": "paper-bzip2", "intervals": 12, "mobility": False}
    scenario = Scenario.model_validate({**usual, **changes})
    return Simulation(
        scenario,
        restricted(scenario.workload(), {arm}),
        World(machines("azure50").expand(8), Surroundings(500.0)),
        tasks,
        split=split_policy(arm),  # type: ignore[arg-type]
        placement=placement,
        random=Random(0),
    )


def test_a_task_whose_host_dies_is_tried_again_on_another_once_that_is_noticed() -> None:
    task = Arrival("sim.0", 0.0, "mnist", 400, 9e6)
    simulation = set_up(EarliestFinish(), task, arm="whole", failures=Failures(mean_intervals_between=1e6))
    died: list[str] = []

    def kill() -> None:
        (execution,) = simulation.world.executions.values()
        died.append(execution.runs["whole"].machine.name)
        simulation.fail(died[0])

    simulation.events.at(1000.0, kill)
    simulation.run()
    (record,) = simulation.records
    assert (record.status, record.attempts) == ("answered", 2)
    assert record.wait_ms == pytest.approx(1000 + 2500 + DISPATCH_MS)
    assert died[0] not in simulation.view.nodes
    assert len(simulation.view.nodes) == 7


def test_a_task_sent_to_a_host_that_died_unnoticed_is_tried_again() -> None:
    task = Arrival("sim.0", 1000.0, "mnist", 400, 9e6)
    simulation = set_up(EarliestFinish(), task, arm="whole", failures=Failures(mean_intervals_between=1e6))
    for name in list(simulation.world.machines)[:-1]:
        simulation.events.at(999.0, partial(simulation.fail, name))
    simulation.run()
    (record,) = simulation.records
    assert (record.status, record.attempts) == ("answered", 2)


def test_a_lost_branch_costs_its_classes_where_a_new_attempt_would_come_too_late() -> None:
    task = Arrival("sim.0", 0.0, "mnist", 400, 20_000.0)
    failures = Failures(mean_intervals_between=1e6)
    simulation = set_up(EarliestFinish(), task, arm="semantic", failures=failures)

    left: list[str] = []

    def kill() -> None:
        (execution,) = simulation.world.executions.values()
        victim = execution.runs["branch-0"].machine
        left.extend(name for name, run in execution.runs.items() if run.machine is not victim)
        simulation.fail(victim.name)

    simulation.events.at(5000.0, kill)
    simulation.run()
    (record,) = simulation.records
    assert (record.status, record.attempts, record.on_time) == ("answered", 1, True)
    assert 0 < len(left) < 5
    assert record.coverage == pytest.approx(len(left) / 5)
    whole = simulation.applications["mnist"].variant("semantic").accuracy
    assert record.accuracy == pytest.approx(whole * len(left) / 5)


def test_tasks_wait_while_memory_is_held_by_others() -> None:
    # One host whose memory holds one stage at a time.
    scenario = Scenario(
        hosts=1, intervals=20, rate=1, memory_factor=0.12, mix={"mnist": 1.0}, mobility=False, records=True
    )
    result = run(scenario, "semantic+earliest-finish")
    assert result.wait_intervals is not None
    assert result.tasks.answered > 0


@pytest.mark.parametrize("placement", ["random", "gobi", "daso", "earliest-finish"])
def test_few_hosts_do_not_choke_on_containers_they_have_no_memory_for(placement: str) -> None:
    scenario = Scenario(
        profile="paper-bzip2", hosts=4, rate=8, intervals=15, work_scale=0.8
    )  # whatever the calibrated one is
    result = run(scenario, f"semantic+{placement}", seed=1)
    assert result.tasks.answered > 0.75 * result.tasks.arrived  # it was a quarter when all were started


def test_slower_hosts_make_responses_longer() -> None:
    quick = run(SMALL, "semantic+random").response_intervals.mean
    drift = Drift(at_interval=0, factor=0.5)
    slow = run(SMALL.model_copy(update={"drift": drift}), "semantic+random").response_intervals.mean
    assert quick is not None
    assert slow is not None
    assert slow > 1.5 * quick


def test_the_state_learnt_in_training_is_handed_over() -> None:
    scenario = SMALL.model_copy(update={"training_intervals": 10})
    trained, untrained = run(scenario, "mab+random"), run(SMALL, "mab+random")
    assert trained.tasks.arrived == untrained.tasks.arrived
    assert trained.figures() != untrained.figures()


class Restless(RoundRobin, Rearranging):
    """Wants every stage that can move on the next host at each interval."""

    def rearrange(
        self, active: Sequence[ActiveJob], cluster: ClusterView, now_ms: float
    ) -> Mapping[str, Mapping[str, str]]:
        del now_ms
        names = list(cluster.nodes)
        return {
            job.task: {
                stage: names[(names.index(node) + 1) % len(names)]
                for stage, node in job.nodes.items()
                if job.remaining[stage] > 0
            }
            for job in active
        }


@pytest.mark.parametrize(("mode", "moves"), [("interval", True), ("immediate", False)])
def test_what_runs_is_moved_at_intervals_and_pays_for_it(mode: str, moves: bool) -> None:  # noqa: FBT001
    tasks = [Arrival("sim.0", 0.0, "mnist", 400, 9e6), Arrival("sim.1", 0.0, "cifar100", 400, 9e6)]
    simulations = [set_up(placement, *tasks, mode=mode) for placement in (RoundRobin(), Restless())]
    for simulation in simulations:
        simulation.run()
    still, restless = ([record.migrations for record in simulation.records] for simulation in simulations)
    assert still == [0, 0]
    assert (min(restless) > 0) == moves
    assert [record.status for record in simulations[1].records] == ["answered"] * 2


def test_a_result_survives_json() -> None:
    result = run(SMALL, "random+random")
    assert Result.model_validate_json(result.model_dump_json()) == result


def test_arrivals_are_replayed_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "arrivals.csv"
    file.write_text("at_s,application,batch,deadline_s\n30,cifar100,300,3000\n10,mnist,250,600\n")
    records = run(SMALL.model_copy(update={"replay": file}), "semantic+random").records or ()
    assert [(record.application, record.arrived_ms, record.deadline_ms) for record in records] == [
        ("mnist", 10_000, 600_000),
        ("cifar100", 30_000, 3_000_000),
    ]


def test_the_mix_says_which_applications_are_asked_for() -> None:
    result = run(SMALL.model_copy(update={"mix": {"mnist": 3.0, "cifar100": 1.0}}), "semantic+random")
    drawn = Counter(record.application for record in result.records or ())
    assert drawn["fashionmnist"] == 0
    assert drawn["mnist"] > drawn["cifar100"] > 0
