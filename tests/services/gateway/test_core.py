"""The state machine of tasks: stimuli in, instructions out."""

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.instructions import Announce, Cancel, Dispatch, Finish, Instruction, Settle
from splitplace.services.gateway.task import TRANSITIONS, RetryRules
from tests.services.gateway.stimuli import (
    BOOT,
    OTHER_BOOT,
    decided,
    failure,
    kinds,
    part,
    placed,
    result,
    star,
    task,
)
from tests.support.message_examples import application

RULES = RetryRules(grace_ms=100.0, max_attempts=4, stall_ms=400.0)


def core_with_running_task(nodes: tuple[str, ...] = ("n1",)) -> GatewayCore:
    core = GatewayCore(RULES)
    core.nodes_online({"n1": BOOT, "n2": BOOT}, 0.0)
    core.accept(task(), 0.0)
    core.decided(decided(), 1.0)
    assert kinds(core.placed(placed(nodes=nodes), 2.0)) == ["Dispatch"]
    return core


def test_a_task_goes_from_accepted_over_placed_to_answered() -> None:
    core = GatewayCore(RULES)
    assert kinds(core.accept(task(), 0.0)) == ["Announce"]
    assert kinds(core.decided(decided(), 1.0)) == []
    assert kinds(core.placed(placed(), 2.0)) == ["Dispatch"]
    (finish,) = core.result(result(), 50.0)
    assert isinstance(finish, Finish)
    assert (finish.status, finish.reason, finish.response_ms) == ("answered", "because", 50.0)
    assert core.tasks == {}


def test_a_refusing_splitter_ends_the_task_with_its_reason() -> None:
    core = GatewayCore(RULES)
    core.accept(task(), 0.0)
    (finish,) = core.decided(decided(variant=None), 1.0)
    assert isinstance(finish, Finish)
    assert (finish.status, finish.reason) == ("refused", "because")


def test_placed_before_decided_is_as_good_as_after_it() -> None:
    core = GatewayCore(RULES)
    core.accept(task(), 0.0)
    assert kinds(core.placed(placed(), 1.0)) == ["Dispatch"]
    assert kinds(core.decided(decided(), 2.0)) == []
    assert kinds(core.result(result(), 3.0)) == ["Finish"]


def test_repeated_messages_of_every_kind_change_nothing() -> None:
    core = core_with_running_task()
    assert kinds(core.accept(task(), 3.0)) == []
    assert kinds(core.decided(decided(variant=None), 3.0)) == []
    assert kinds(core.placed(placed(nodes=("n2",)), 3.0)) == []
    assert kinds(core.result(result(), 4.0)) == ["Finish"]
    assert kinds(core.result(result(), 5.0)) == []


def test_an_attempt_that_was_placed_on_a_node_that_is_gone_makes_the_next_avoid_it() -> None:
    core = GatewayCore(RULES)
    core.nodes_online({"n2": BOOT}, 0.0)
    core.accept(task(), 0.0)
    core.decided(decided(), 1.0)
    announced = [each for each in core.placed(placed(), 2.0) if isinstance(each, Announce)]
    assert [(each.attempt, each.avoid) for each in announced] == [(2, ("n1",))]


def test_messages_of_other_attempts_are_ignored() -> None:
    core = core_with_running_task()
    core.nodes_online({"n2": BOOT}, 3.0)
    assert core.tasks["camera.1"].attempt == 2
    assert kinds(core.result(result(attempt=1), 4.0)) == []
    assert kinds(core.placed(placed(attempt=1), 4.0)) == []
    assert kinds(core.stage_failed(failure(attempt=1), 4.0)) == []
    assert kinds(core.result(result(attempt=3), 4.0)) == []


def test_a_result_of_another_batch_size_is_ignored() -> None:
    assert kinds(core_with_running_task().result(result(batch=3), 5.0)) == []


def test_a_dead_node_begins_the_next_attempt_and_cancels_the_old_one() -> None:
    core = core_with_running_task(nodes=("n1", "n2"))
    assert core.nodes_online({"n2": BOOT}, 5.0) == [
        Cancel("camera.1", 1, ("n1", "n2")),
        Announce("camera.1", 2, "tiny", 2, 32, 1000.0, due_ms=1000.0, avoid=(), grace_ms=100.0),
    ]


def test_a_node_that_restarted_has_lost_its_work() -> None:
    assert "Announce" in kinds(core_with_running_task().nodes_online({"n1": OTHER_BOOT, "n2": BOOT}, 5.0))


def test_the_death_of_an_uninvolved_node_changes_nothing() -> None:
    assert kinds(core_with_running_task().nodes_online({"n1": BOOT}, 5.0)) == []


def test_a_placement_on_a_node_that_just_died_is_tried_again() -> None:
    core = GatewayCore(RULES)
    core.nodes_online({"n2": BOOT}, 0.0)
    core.accept(task(), 0.0)
    assert kinds(core.placed(placed(), 1.0)) == ["Cancel", "Announce"]


def test_a_failed_stage_is_tried_again_without_its_node() -> None:
    core = core_with_running_task()
    assert kinds(core.stage_failed(failure(), 5.0)) == ["Cancel", "Announce"]
    assert core.tasks["camera.1"].avoid == ("n1",)


def test_a_failure_forged_by_a_node_that_has_no_part_is_ignored() -> None:
    assert kinds(core_with_running_task().stage_failed(failure(node="n2"), 5.0)) == []


def test_without_a_feasible_placement_it_asks_again_soon_and_allows_all_nodes() -> None:
    core = core_with_running_task()
    core.stage_failed(failure(), 5.0)
    assert core.placed(placed(attempt=2, nodes=()), 10.0) == []
    assert core.time_passed(409.0) == []
    (announce,) = core.time_passed(410.0)
    assert isinstance(announce, Announce)
    assert (announce.attempt, announce.avoid) == (3, ())


def test_an_aggregator_that_restarted_costs_running_tasks_an_attempt() -> None:
    assert "Announce" in kinds(core_with_running_task().service_restarted("result-aggregator", 5.0))


def test_a_splitter_that_restarted_costs_waiting_tasks_an_attempt_but_not_running_ones() -> None:
    core = core_with_running_task()
    core.accept(task("camera.2"), 3.0)
    (announce,) = core.service_restarted("splitter", 5.0)
    assert isinstance(announce, Announce)
    assert announce.key == "camera.2"


def test_a_resource_monitor_that_restarted_changes_nothing() -> None:
    assert kinds(core_with_running_task().service_restarted("resource-monitor", 5.0)) == []


def test_a_stalled_task_is_tried_again_after_ever_longer_pauses() -> None:
    core = GatewayCore(RULES)
    core.accept(task(deadline_ms=1e6), 0.0)
    assert kinds(core.time_passed(399.0)) == []
    assert kinds(core.time_passed(400.0)) == ["Announce"]
    assert kinds(core.time_passed(1199.0)) == []
    assert kinds(core.time_passed(1200.0)) == ["Announce"]


def test_a_long_prediction_is_given_the_time_it_needs() -> None:
    core = GatewayCore(RULES)
    core.accept(task(deadline_ms=1e6), 0.0)
    slow = placed().model_copy(update={"predicted_ms": 2000.0})
    core.placed(slow, 0.0)
    assert kinds(core.time_passed(5999.0)) == []
    assert kinds(core.time_passed(6000.0)) == ["Cancel", "Announce"]


def test_after_the_last_attempt_it_fails_with_the_last_trouble() -> None:
    core = GatewayCore(RULES)
    core.accept(task(deadline_ms=1e6), 0.0)
    for attempt in range(1, RULES.max_attempts + 1):
        core.placed(placed(attempt), 1.0)
        instructions = core.stage_failed(failure(attempt=attempt), 2.0)
    finish = instructions[-1]
    assert isinstance(finish, Finish)
    assert finish.status == "failed"
    assert "too big" in finish.reason


def test_a_late_result_within_the_grace_is_an_answer_and_after_it_the_task_is_expired() -> None:
    core = core_with_running_task()
    assert kinds(core.time_passed(1099.0)) == ["Cancel", "Announce"]
    core.placed(placed(attempt=2), 1099.5)
    (finish,) = core.result(result(attempt=2), 1099.9)
    assert isinstance(finish, Finish)
    assert finish.status == "answered"

    core = core_with_running_task()
    instructions = core.time_passed(1100.0)
    finish = instructions[-1]
    assert isinstance(finish, Finish)
    assert finish.status == "expired"
    assert kinds(core.result(result(), 1101.0)) == []


Stimulus = Callable[[GatewayCore, float], list[Instruction]]

attempts = st.integers(1, 5)
keys = st.sampled_from(["camera.1", "camera.2", "door.1"])
node_sets = st.lists(st.sampled_from(["n1", "n2", "n3"]), max_size=3, unique=True).map(tuple)
boots = st.sampled_from([BOOT, OTHER_BOOT])


def stimuli() -> st.SearchStrategy[Any]:
    """Anything that can come over MQTT, in any order, for any attempt."""
    return st.one_of(
        st.builds(lambda key: lambda core, now: core.accept(task(key), now), keys),
        st.builds(
            lambda key, attempt, variant, all_ms: (
                lambda core, now: core.decided(decided(attempt, variant, key, all_ms), now)
            ),
            *(keys, attempts, st.sampled_from(["whole", "whole", None])),
            st.sampled_from([(), (10.0,), (2000.0, None)]),
        ),
        st.builds(
            lambda key, attempt, nodes: lambda core, now: core.placed(placed(attempt, nodes, key), now),
            *(keys, attempts, node_sets),
        ),
        st.builds(
            lambda key, attempt: lambda core, now: core.result(result(attempt, key), now), keys, attempts
        ),
        st.builds(
            lambda key, attempt: lambda core, now: core.result(part(attempt, key), now), keys, attempts
        ),
        st.builds(
            lambda key, attempt, nodes: lambda core, now: core.placed(star(attempt, nodes, key), now),
            *(keys, attempts, node_sets),
        ),
        st.builds(
            lambda key, attempt, node: lambda core, now: core.stage_failed(failure(node, attempt, key), now),
            *(keys, attempts, st.sampled_from(["n1", "n2"])),
        ),
        st.builds(
            lambda nodes, boot: lambda core, now: core.nodes_online(dict.fromkeys(nodes, boot), now),
            *(node_sets, boots),
        ),
        st.builds(
            lambda name: lambda core, now: core.service_restarted(name, now),
            st.sampled_from(["splitter", "placer", "result-aggregator", "resource-monitor"]),
        ),
        st.just(lambda core, now: core.time_passed(now)),
    )


@given(st.lists(st.tuples(st.floats(0.0, 300.0), stimuli()), max_size=60))
def test_whatever_happens_each_accepted_task_ends_exactly_once_and_in_time(
    events: list[tuple[float, Stimulus]],
) -> None:
    core = GatewayCore(RULES, {"tiny": application(name="tiny")})
    ends: Counter[str] = Counter()
    begun: Counter[str] = Counter()
    last_attempt: dict[str, int] = {}
    now = 0.0

    def check(instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Announce(key, attempt):
                    if attempt == 1:
                        begun[key] += 1
                        last_attempt[key] = 0
                    assert attempt == last_attempt[key] + 1
                    assert attempt <= RULES.max_attempts
                    last_attempt[key] = attempt
                case Dispatch(key, attempt, _, placement):
                    assert attempt == placement.attempt == last_attempt[key]
                case Finish(key):
                    ends[key] += 1
                    assert (instruction.status == "answered") == (instruction.result is not None)
                case Cancel() | Settle():
                    pass

    for pause, stimulus in events:
        now += pause
        check(stimulus(core, now))
        assert core.next_due_ms <= min(
            (task.due_ms + RULES.grace_ms for task in core.tasks.values()), default=inf
        )
    check(core.time_passed(now + 1000.0 + RULES.grace_ms + 1.0))
    assert core.tasks == {}
    assert ends == begun


def test_a_shell_that_wakes_only_when_something_is_due_does_the_same_as_one_that_looks_all_the_time() -> None:
    eager, lazy = (running_beside_waiting() for _ in range(2))
    looked = [(float(now), done) for now in range(2500) for done in eager.time_passed(float(now))]
    woken = []
    while (due_ms := lazy.next_due_ms) < inf:
        woken += [(due_ms, done) for done in lazy.time_passed(due_ms)]
    assert woken == looked
    assert lazy.tasks == eager.tasks == {}


def running_beside_waiting() -> GatewayCore:
    core = core_with_running_task()
    core.accept(task("camera.2", deadline_ms=2000.0), 3.0)
    core.placed(placed(key="camera.2", nodes=()), 4.0)
    return core


def test_every_phase_can_be_left_and_the_life_of_a_task_ends() -> None:
    """Each phase leads to `ended`, and each but the first is reached from another."""
    assert all("ended" in following for following in TRANSITIONS.values())
    reached = {phase for before, after in TRANSITIONS.items() for phase in after if phase != before}
    assert reached == {*TRANSITIONS, "ended"}


def core_with_tasks(*names: str) -> GatewayCore:
    core = GatewayCore(RULES)
    for name in names:
        core.accept(task(f"c.{name}", deadline_ms=1e6), 0.0)
    return core


def retried(instructions: list[Instruction]) -> list[str]:
    return [each.key for each in instructions if isinstance(each, Announce)]


def test_waiting_behind_others_at_the_splitter_is_no_stall() -> None:
    names = [f"t{number}" for number in range(100)]
    core = core_with_tasks(*names)
    for number, name in enumerate(names, 1):
        now_ms = 390.0 * number  # nearly the stall limit for each
        assert core.time_passed(now_ms) == []
        core.decided(decided(key=f"c.{name}"), now_ms)
        core.placed(placed(key=f"c.{name}"), now_ms)
        core.result(result(key=f"c.{name}"), now_ms)
    assert core.tasks == {}
    assert core.retried == 0


def test_waiting_behind_others_at_the_placer_is_no_stall() -> None:
    names = [f"t{number}" for number in range(20)]
    core = core_with_tasks(*names)
    for name in names:
        core.decided(decided(key=f"c.{name}"), 1.0)
    for number, name in enumerate(names, 1):
        assert core.time_passed(390.0 * number) == []
        core.placed(placed(key=f"c.{name}"), 390.0 * number)
        core.result(result(key=f"c.{name}"), 390.0 * number)
    assert core.retried == 0


def test_a_splitter_that_has_stopped_is_a_stall_for_all_that_wait() -> None:
    core = core_with_tasks("a", "b", "c")
    core.decided(decided(key="c.a"), 300.0)
    core.placed(placed(key="c.a"), 300.0)
    core.result(result(key="c.a"), 310.0)
    assert retried(core.time_passed(699.0)) == []
    assert retried(core.time_passed(700.0)) == ["c.b", "c.c"]


def test_a_task_that_was_passed_over_is_tried_again_although_the_splitter_goes_on() -> None:
    names = [f"t{number}" for number in range(10)]
    core = core_with_tasks("lost", *names)
    found = []
    for number, name in enumerate(names, 1):
        core.decided(decided(key=f"c.{name}"), 100.0 * number)
        core.placed(placed(key=f"c.{name}"), 100.0 * number)
        core.result(result(key=f"c.{name}"), 100.0 * number)
        found += retried(core.time_passed(100.0 * number + 50.0))
    assert found == ["c.lost"]
