"""The state machine of tasks: stimuli in, instructions out."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.cluster import StageFailure
from splitplace.messages.task import (
    ArmEstimate,
    ClassScore,
    StagePlacement,
    TaskDecided,
    TaskPlaced,
    TaskResult,
)
from splitplace.services.gateway.core import (
    Announce,
    Cancel,
    Dispatch,
    Finish,
    GatewayCore,
    Instruction,
    RetryRules,
    Settle,
    Task,
)
from tests.messages.examples import application

BOOT = "0" * 16
OTHER_BOOT = "1" * 16
RULES = RetryRules(grace_ms=100.0, max_attempts=4, stall_ms=400.0)


def task(key: str = "camera.1", deadline_ms: float = 1000.0, batch: int = 2) -> Task:
    return Task(key, "tiny", batch, 32, deadline_ms, accepted_at_ms=0.0)


def decided(
    attempt: int = 1,
    variant: str | None = "whole",
    key: str = "camera.1",
    all_ms: tuple[float | None, ...] = (),
) -> TaskDecided:
    """A decision among arms that are predicted to take these times."""
    return TaskDecided(
        task=key,
        attempt=attempt,
        application="tiny",
        batch=2,
        slack_ms=900.0,
        policy="rule",
        variant=variant,
        reason="because",
        predicted_ms=10.0,
        alternatives=tuple(
            ArmEstimate(variant=f"v{index}", accuracy=0.9, predicted_ms=arm_ms, note="")
            for index, arm_ms in enumerate(all_ms)
        ),
    )


def placed(attempt: int = 1, nodes: tuple[str, ...] = ("n1",), key: str = "camera.1") -> TaskPlaced:
    return TaskPlaced(
        task=key,
        attempt=attempt,
        application="tiny",
        variant="whole",
        batch=2,
        micro_batch=2,
        policy="earliest-finish",
        stages=tuple(
            StagePlacement(stage=f"s{index}", node=node, work_ms=1.0) for index, node in enumerate(nodes)
        ),
        predicted_ms=10.0,
        reason="" if nodes else "no node has the memory",
    )


def result(attempt: int = 1, key: str = "camera.1", batch: int = 2) -> TaskResult:
    return TaskResult(
        task=key,
        attempt=attempt,
        application="tiny",
        variant="whole",
        scores=tuple(ClassScore(index=1, confidence=0.9) for _ in range(batch)),
        stages=(),
        micro_batches=1,
        moved_bytes=0,
    )


def part(attempt: int, key: str) -> TaskResult:
    return result(attempt, key).model_copy(update={"variant": "semantic", "coverage": 0.5})


def star(attempt: int = 1, nodes: tuple[str, ...] = ("n1", "n2"), key: str = "camera.1") -> TaskPlaced:
    """The branches `left` and `right` of the example application."""
    made = placed(attempt, nodes, key)
    stages = tuple(
        stage.model_copy(update={"stage": name})
        for stage, name in zip(made.stages, ("left", "right"), strict=False)
    )
    return made.model_copy(update={"variant": "semantic", "stages": stages})


def failure(node: str = "n1", attempt: int = 1, key: str = "camera.1") -> StageFailure:
    return StageFailure(node=node, task=key, attempt=attempt, stage="s0", kind="memory", reason="too big")


def run(instructions: Iterator[Instruction]) -> list[Instruction]:
    return list(instructions)


def kinds(instructions: Iterator[Instruction]) -> list[str]:
    return [type(instruction).__name__ for instruction in instructions]


def book_with_running_task(nodes: tuple[str, ...] = ("n1",)) -> GatewayCore:
    book = GatewayCore(RULES)
    run(book.nodes_online({"n1": BOOT, "n2": BOOT}, 0.0))
    run(book.accept(task(), 0.0))
    run(book.decided(decided(), 1.0))
    assert kinds(book.placed(placed(nodes=nodes), 2.0)) == ["Dispatch"]
    return book


def test_a_task_goes_from_accepted_over_placed_to_answered() -> None:
    book = GatewayCore(RULES)
    assert kinds(book.accept(task(), 0.0)) == ["Announce"]
    assert kinds(book.decided(decided(), 1.0)) == []
    assert kinds(book.placed(placed(), 2.0)) == ["Dispatch"]
    (finish,) = run(book.result(result(), 50.0))
    assert isinstance(finish, Finish)
    assert (finish.status, finish.reason, finish.response_ms) == ("answered", "because", 50.0)
    assert book.tasks == {}


def test_a_refusing_splitter_ends_the_task_with_its_reason() -> None:
    book = GatewayCore(RULES)
    run(book.accept(task(), 0.0))
    (finish,) = run(book.decided(decided(variant=None), 1.0))
    assert isinstance(finish, Finish)
    assert (finish.status, finish.reason) == ("refused", "because")


def test_placed_before_decided_is_as_good_as_after_it() -> None:
    book = GatewayCore(RULES)
    run(book.accept(task(), 0.0))
    assert kinds(book.placed(placed(), 1.0)) == ["Dispatch"]
    assert kinds(book.decided(decided(), 2.0)) == []
    assert kinds(book.result(result(), 3.0)) == ["Finish"]


def test_repeated_messages_of_every_kind_change_nothing() -> None:
    book = book_with_running_task()
    assert kinds(book.accept(task(), 3.0)) == []
    assert kinds(book.decided(decided(variant=None), 3.0)) == []
    assert kinds(book.placed(placed(nodes=("n2",)), 3.0)) == []
    assert kinds(book.result(result(), 4.0)) == ["Finish"]
    assert kinds(book.result(result(), 5.0)) == []


def test_messages_of_other_attempts_are_ignored() -> None:
    book = book_with_running_task()
    run(book.nodes_online({"n2": BOOT}, 3.0))
    assert book.tasks["camera.1"].attempt == 2
    assert kinds(book.result(result(attempt=1), 4.0)) == []
    assert kinds(book.placed(placed(attempt=1), 4.0)) == []
    assert kinds(book.stage_failed(failure(attempt=1), 4.0)) == []
    assert kinds(book.result(result(attempt=3), 4.0)) == []


def test_a_result_of_another_batch_size_is_ignored() -> None:
    assert kinds(book_with_running_task().result(result(batch=3), 5.0)) == []


def test_a_dead_node_begins_the_next_attempt_and_cancels_the_old_one() -> None:
    book = book_with_running_task(nodes=("n1", "n2"))
    cancel, announce = run(book.nodes_online({"n2": BOOT}, 5.0))
    assert cancel == Cancel("camera.1", 1, ("n1", "n2"))
    assert isinstance(announce, Announce)
    assert announce.task.attempt == 2


def test_a_node_that_restarted_has_lost_its_work() -> None:
    assert "Announce" in kinds(book_with_running_task().nodes_online({"n1": OTHER_BOOT, "n2": BOOT}, 5.0))


def test_the_death_of_an_uninvolved_node_changes_nothing() -> None:
    assert kinds(book_with_running_task().nodes_online({"n1": BOOT}, 5.0)) == []


def test_a_placement_on_a_node_that_just_died_is_tried_again() -> None:
    book = GatewayCore(RULES)
    run(book.nodes_online({"n2": BOOT}, 0.0))
    run(book.accept(task(), 0.0))
    assert kinds(book.placed(placed(), 1.0)) == ["Cancel", "Announce"]


def test_a_failed_stage_is_tried_again_without_its_node() -> None:
    book = book_with_running_task()
    assert kinds(book.stage_failed(failure(), 5.0)) == ["Cancel", "Announce"]
    assert book.tasks["camera.1"].avoid == ("n1",)


def test_a_failure_forged_by_a_node_that_has_no_part_is_ignored() -> None:
    assert kinds(book_with_running_task().stage_failed(failure(node="n2"), 5.0)) == []


def test_without_a_feasible_placement_it_asks_again_soon_and_allows_all_nodes() -> None:
    book = GatewayCore(RULES)
    waiting = task()
    waiting.avoid = ("n1",)
    run(book.accept(waiting, 0.0))
    assert kinds(book.placed(placed(nodes=()), 10.0)) == []
    assert kinds(book.tick(150.0)) == []
    assert kinds(book.tick(250.0)) == ["Announce"]
    assert book.tasks["camera.1"].avoid == ()


def test_an_aggregator_that_restarted_costs_running_tasks_an_attempt() -> None:
    assert "Announce" in kinds(book_with_running_task().service_restarted("result-aggregator", 5.0))


def test_a_splitter_that_restarted_costs_waiting_tasks_an_attempt_but_not_running_ones() -> None:
    book = book_with_running_task()
    run(book.accept(task("camera.2"), 3.0))
    (announce,) = run(book.service_restarted("splitter", 5.0))
    assert isinstance(announce, Announce)
    assert announce.task.key == "camera.2"


def test_a_resource_monitor_that_restarted_changes_nothing() -> None:
    assert kinds(book_with_running_task().service_restarted("resource-monitor", 5.0)) == []


def test_a_stalled_task_is_tried_again_after_ever_longer_pauses() -> None:
    book = GatewayCore(RULES)
    run(book.accept(task(deadline_ms=1e6), 0.0))
    assert kinds(book.tick(399.0)) == []
    assert kinds(book.tick(400.0)) == ["Announce"]
    assert kinds(book.tick(1199.0)) == []
    assert kinds(book.tick(1200.0)) == ["Announce"]


def test_a_long_prediction_is_given_the_time_it_needs() -> None:
    book = GatewayCore(RULES)
    run(book.accept(task(deadline_ms=1e6), 0.0))
    slow = placed().model_copy(update={"predicted_ms": 2000.0})
    run(book.placed(slow, 0.0))
    assert kinds(book.tick(5999.0)) == []
    assert kinds(book.tick(6000.0)) == ["Cancel", "Announce"]


def test_after_the_last_attempt_it_fails_with_the_last_trouble() -> None:
    book = GatewayCore(RULES)
    run(book.accept(task(deadline_ms=1e6), 0.0))
    for attempt in range(1, RULES.max_attempts + 1):
        run(book.placed(placed(attempt), 1.0))
        instructions = run(book.stage_failed(failure(attempt=attempt), 2.0))
    finish = instructions[-1]
    assert isinstance(finish, Finish)
    assert finish.status == "failed"
    assert "too big" in finish.reason


def test_a_late_result_within_the_grace_is_an_answer_and_after_it_the_task_is_expired() -> None:
    book = book_with_running_task()
    assert kinds(book.tick(1099.0)) == ["Cancel", "Announce"]
    run(book.placed(placed(attempt=2), 1099.5))
    (finish,) = run(book.result(result(attempt=2), 1099.9))
    assert isinstance(finish, Finish)
    assert finish.status == "answered"

    book = book_with_running_task()
    instructions = run(book.tick(1100.0))
    finish = instructions[-1]
    assert isinstance(finish, Finish)
    assert finish.status == "expired"
    assert kinds(book.result(result(), 1101.0)) == []


Stimulus = Callable[[GatewayCore, float], Iterator[Instruction]]

attempts = st.integers(1, 5)
keys = st.sampled_from(["camera.1", "camera.2", "door.1"])
node_sets = st.lists(st.sampled_from(["n1", "n2", "n3"]), max_size=3, unique=True).map(tuple)
boots = st.sampled_from([BOOT, OTHER_BOOT])


def stimuli() -> st.SearchStrategy[Any]:
    """Anything that can come over MQTT, in any order, for any attempt."""
    return st.one_of(
        st.builds(lambda key: lambda book, now: book.accept(task(key), now), keys),
        st.builds(
            lambda key, attempt, variant, all_ms: (
                lambda book, now: book.decided(decided(attempt, variant, key, all_ms), now)
            ),
            *(keys, attempts, st.sampled_from(["whole", "whole", None])),
            st.sampled_from([(), (10.0,), (2000.0, None)]),
        ),
        st.builds(
            lambda key, attempt, nodes: lambda book, now: book.placed(placed(attempt, nodes, key), now),
            *(keys, attempts, node_sets),
        ),
        st.builds(
            lambda key, attempt: lambda book, now: book.result(result(attempt, key), now), keys, attempts
        ),
        st.builds(
            lambda key, attempt: lambda book, now: book.result(part(attempt, key), now), keys, attempts
        ),
        st.builds(
            lambda key, attempt, nodes: lambda book, now: book.placed(star(attempt, nodes, key), now),
            *(keys, attempts, node_sets),
        ),
        st.builds(
            lambda key, attempt, node: lambda book, now: book.stage_failed(failure(node, attempt, key), now),
            *(keys, attempts, st.sampled_from(["n1", "n2"])),
        ),
        st.builds(
            lambda nodes, boot: lambda book, now: book.nodes_online(dict.fromkeys(nodes, boot), now),
            *(node_sets, boots),
        ),
        st.builds(
            lambda name: lambda book, now: book.service_restarted(name, now),
            st.sampled_from(["splitter", "placer", "result-aggregator", "resource-monitor"]),
        ),
        st.just(lambda book, now: book.tick(now)),
    )


@given(st.lists(st.tuples(st.floats(0.0, 300.0), stimuli()), max_size=60))
def test_whatever_happens_each_accepted_task_ends_exactly_once_and_in_time(
    events: list[tuple[float, Stimulus]],
) -> None:
    book = GatewayCore(RULES, {"tiny": application(name="tiny")})
    ends: Counter[str] = Counter()
    begun: Counter[str] = Counter()
    last_attempt: dict[str, int] = {}
    now = 0.0

    def check(instructions: Iterator[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Announce(announced):
                    if announced.attempt == 1:
                        begun[announced.key] += 1
                        last_attempt[announced.key] = 0
                    assert announced.attempt == last_attempt[announced.key] + 1
                    assert announced.attempt <= RULES.max_attempts
                    last_attempt[announced.key] = announced.attempt
                case Dispatch(dispatched, placement):
                    assert dispatched.attempt == placement.attempt
                case Finish(finished, status, _, found):
                    ends[finished.key] += 1
                    assert (status == "answered") == (found is not None)
                case Cancel() | Settle():
                    pass

    for pause, stimulus in events:
        now += pause
        check(stimulus(book, now))
    check(book.tick(now + 1000.0 + RULES.grace_ms + 1.0))
    assert book.tasks == {}
    assert ends == begun
