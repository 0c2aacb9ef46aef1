"""Where branches are missing at the deadline, the task ends with the part of the answer that is there."""

from typing import Any

import pytest

from splitplace.messages.placing import StagePlacement
from splitplace.messages.second_run import SecondPart, SecondRun
from splitplace.messages.task import TaskPlaced, TaskResult
from splitplace.services.gateway import answers
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.instructions import Cancel, Finish, Settle
from splitplace.services.gateway.partial import comes_too_late, surviving_coverage
from splitplace.services.gateway.task import RetryRules
from tests.services.gateway.stimuli import BOOT, decided, entry, failure, kinds, placed, result, star, task
from tests.support.message_examples import application
from tests.support.outputs import logits_application

RULES = RetryRules(grace_ms=100.0, stall_ms=10_000.0, settle_ms=80.0, hand_over_ms=30.0)
NODES = {"n1": BOOT, "n2": BOOT, "n3": BOOT}
QUICK_MS, SLOW_MS = 10.0, 600.0


def partly(coverage: float = 0.5, **changes: Any) -> TaskResult:
    return result(**changes).model_copy(update={"variant": "semantic", "coverage": coverage})


def running(
    predicted_ms: float = QUICK_MS, rules: RetryRules = RULES, nodes: tuple[str, str] = ("n1", "n2")
) -> GatewayCore:
    """A core with one task of 1000 ms, its branches on two nodes."""
    core = GatewayCore(rules, {"tiny": application(name="tiny")})
    core.nodes_online(NODES, 0.0)
    core.accept(task(), 0.0)
    core.decided(decided(1, "semantic", all_ms=(predicted_ms,)), 1.0)
    assert kinds(core.placed(star(nodes=nodes), 2.0)) == ["Dispatch"]
    return core


def spread(*shares: tuple[Any, ...], batch: int = 2) -> TaskPlaced:
    """Stages on nodes, each with its micro-batches of two images where it has replicas."""
    stages = tuple(
        StagePlacement(stage=stage, node=node, work_ms=1.0, micro_batches=numbers[0] if numbers else None)
        for stage, node, *numbers in shares
    )
    return placed().model_copy(update={"stages": stages, "batch": batch})


def the_end(instructions: Any) -> Finish:
    *_, finish = instructions
    assert isinstance(finish, Finish)
    return finish


def test_the_aggregator_is_asked_once_shortly_before_the_deadline_and_once_before_the_grace_ends() -> None:
    core = running()
    asked = [now_ms for now_ms in range(0, 1100, 10) if Settle("camera.1") in core.time_passed(float(now_ms))]
    assert asked == [920, 1020]


def test_a_chain_is_never_settled() -> None:
    core = GatewayCore(RULES, {"tiny": application(name="tiny")})
    core.accept(task(), 0.0)
    core.placed(placed(nodes=("n1", "n2")).model_copy(update={"variant": "layer"}), 1.0)
    assert kinds(core.time_passed(950.0)) == []
    assert [type(instruction).__name__ for instruction in core.time_passed(1100.0)] == ["Cancel", "Finish"]


def test_at_the_deadline_what_is_there_is_the_answer_on_time_and_the_rest_is_cancelled() -> None:
    core = running()
    assert kinds(core.result(partly(), 930.0)) == []
    assert kinds(core.time_passed(960.0)) == ["Settle"]
    cancel, finish = core.time_passed(980.0)
    assert cancel == Cancel("camera.1", 1, ("n1", "n2"))
    assert isinstance(finish, Finish)
    assert (finish.status, finish.result, finish.response_ms) == ("answered", partly(), 980.0)
    assert "50%" in finish.reason
    assert kinds(core.result(result(), 981.0)) == []


def test_a_full_result_before_the_hand_over_wins() -> None:
    core = running()
    core.result(partly(), 930.0)
    assert the_end(core.result(result(), 960.0)).result == result()


def test_a_part_that_comes_after_the_deadline_is_a_late_answer_instead_of_none() -> None:
    core = running()
    core.time_passed(950.0)
    core.result(partly(), 1040.0)
    assert the_end(core.time_passed(1041.0)).status == "answered"


def test_the_part_with_the_greatest_coverage_of_any_attempt_is_kept() -> None:
    core = running()
    core.result(partly(0.5), 10.0)
    core.nodes_online({"n1": BOOT, "n3": BOOT}, 20.0)
    assert core.tasks["camera.1"].attempt == 2
    core.result(partly(0.25, attempt=2), 30.0)
    finish = the_end(core.time_passed(980.0))
    assert finish.result == partly(0.5)
    assert "n2 died" in finish.reason


def test_a_lost_branch_that_runs_again_in_time_makes_the_answer_full() -> None:
    core = running(predicted_ms=SLOW_MS)
    assert core.nodes_online({"n1": BOOT, "n3": BOOT}, 500.0) == []
    assert core.tasks["camera.1"].phase == "degraded"
    again = star(nodes=("n1", "n3"))
    again = again.model_copy(update={"stages": again.stages[1:]})
    second = SecondRun(task="camera.1", attempt=1, parts=(SecondPart(micro_batches=(0,), placed=again),))
    assert kinds(core.second_run(second, 510.0)) == ["Cancel", "Dispatch"]
    assert core.tasks["camera.1"].needed_nodes == ("n3",)
    assert the_end(core.result(result().model_copy(update={"variant": "semantic"}), 900.0)).on_time


@pytest.mark.parametrize("changes", [{"attempt": 2}, {"batch": 3}, {"key": "camera.2"}])
def test_parts_that_are_not_of_this_task_are_ignored(changes: dict[str, Any]) -> None:
    core = running()
    core.result(partly(**changes), 930.0)
    assert the_end(core.time_passed(1100.0)).status == "expired"


def test_a_part_below_the_least_coverage_is_no_answer() -> None:
    core = running(rules=RetryRules(grace_ms=100.0, least_coverage=0.6))
    core.result(partly(0.5), 930.0)
    assert the_end(core.time_passed(1100.0)).status == "expired"


def test_with_time_enough_a_lost_branch_is_tried_again() -> None:
    assert kinds(running().nodes_online({"n1": BOOT}, 500.0)) == ["Cancel", "Announce"]


def test_where_a_new_attempt_would_come_too_late_the_other_branches_go_on() -> None:
    core = running(SLOW_MS)
    assert kinds(core.nodes_online({"n1": BOOT, "n3": BOOT}, 500.0)) == []
    assert kinds(core.stage_failed(failure("n3"), 501.0)) == []
    core.result(partly(), 930.0)
    finish = the_end(core.time_passed(980.0))
    assert (finish.status, finish.attempt) == ("answered", 1)


def test_a_failed_stage_is_as_a_lost_node() -> None:
    core = running(SLOW_MS)
    assert kinds(core.stage_failed(failure("n2"), 500.0)) == []
    assert core.tasks["camera.1"].trouble.startswith("n2: memory")


def test_a_lost_node_whose_output_was_on_its_way_still_gives_the_full_answer() -> None:
    core = running(SLOW_MS)
    core.nodes_online({"n1": BOOT, "n3": BOOT}, 500.0)
    assert the_end(core.result(result(), 600.0)).result == result()


def test_when_the_last_branch_is_lost_it_is_tried_again_all_the_same() -> None:
    core = running(SLOW_MS)
    assert kinds(core.nodes_online({"n1": BOOT}, 500.0)) == []
    assert kinds(core.nodes_online({"n3": BOOT}, 510.0)) == ["Cancel", "Announce"]


def test_two_branches_on_one_lost_node_are_tried_again() -> None:
    core = running(SLOW_MS, nodes=("n2", "n2"))
    assert kinds(core.nodes_online({"n1": BOOT}, 500.0)) == ["Cancel", "Announce"]


def test_a_task_that_is_refused_in_a_later_attempt_gets_the_part_of_the_earlier() -> None:
    core = running()
    core.result(partly(), 10.0)
    core.nodes_online({"n1": BOOT}, 20.0)
    finish = the_end(core.decided(decided(2, variant=None), 30.0))
    assert (finish.status, finish.result) == ("answered", partly())


def refused_after_a_loss() -> GatewayCore:
    core = running()
    core.nodes_online({"n1": BOOT}, 20.0)
    assert core.decided(decided(2, variant=None), 30.0) == [Settle("camera.1")]
    return core


def test_before_it_is_refused_the_aggregator_is_asked_and_a_part_is_the_answer_at_once() -> None:
    finish = the_end(refused_after_a_loss().result(partly(), 35.0))
    assert (finish.status, finish.result, finish.response_ms) == ("answered", partly(), 35.0)


def test_where_the_aggregator_has_nothing_it_is_refused_a_moment_later() -> None:
    core = refused_after_a_loss()
    assert kinds(core.time_passed(109.0)) == []
    finish = the_end(core.time_passed(110.0))
    assert (finish.status, finish.reason) == ("refused", "because")


def test_after_the_last_attempt_the_aggregator_is_asked_and_nothing_new_is_begun() -> None:
    core = running(rules=RetryRules(grace_ms=100.0, max_attempts=1))
    assert kinds(core.nodes_online({"n1": BOOT}, 20.0)) == ["Cancel", "Settle"]
    assert kinds(core.service_restarted("result-aggregator", 21.0)) == []
    assert the_end(core.result(partly(), 25.0)).status == "answered"


def test_the_answer_and_the_outcome_are_marked_with_the_coverage() -> None:
    core = running()
    core.result(partly(0.5), 930.0)
    finish = the_end(core.time_passed(980.0))
    known = application(name="tiny")
    told = answers.answer(finish, entry(labels=(1, 0)), known)
    assert (told.status, told.partial, told.coverage, told.on_time) == ("answered", True, 0.5, True)
    outcome = answers.finished(finish, known, (1, 0))
    assert outcome.coverage == 0.5
    assert not outcome.in_full
    assert outcome.accuracy == 0.5
    assert outcome.variant_accuracy == pytest.approx(0.5 * known.variant("semantic").accuracy)


def test_a_full_answer_is_not_marked_and_no_answer_has_no_coverage() -> None:
    full = the_end(running().result(result(), 50.0))
    told = answers.answer(full, entry(), application(name="tiny"))
    assert (told.partial, told.coverage) == (False, 1.0)
    none = the_end(running().time_passed(1100.0))
    told = answers.answer(none, entry(), application(name="tiny"))
    assert (told.status, told.partial, told.coverage) == ("expired", False, None)


def test_what_survives_is_what_needs_no_lost_node_on_its_way() -> None:
    tree = logits_application().variant("tree")
    where = spread(("trunk", "n1"), ("left", "n2"), ("middle", "n3"), ("right", "n4"))
    assert surviving_coverage(tree, where, set()) == 1.0
    assert surviving_coverage(tree, where, {"n2"}) == pytest.approx(0.6)
    assert surviving_coverage(tree, where, {"n3"}) == pytest.approx(0.4)
    assert surviving_coverage(tree, where, {"n4"}) == pytest.approx(0.4)
    assert surviving_coverage(tree, where, {"n1"}) == 0.0
    assert surviving_coverage(tree, spread(), set()) == 0.0


def test_a_lost_replica_costs_the_micro_batches_that_it_had() -> None:
    tree = logits_application().variant("tree")
    shared = [("left", "n2", (0, 2)), ("left", "n5", (1,))]
    where = spread(("trunk", "n1"), *shared, ("middle", "n3"), ("right", "n4"), batch=6)
    assert surviving_coverage(tree, where, {"n5"}) == pytest.approx((1 + 0.6 + 1) / 3)
    assert surviving_coverage(tree, where, {"n2"}) == pytest.approx((0.6 + 1 + 0.6) / 3)
    trunks = spread(("trunk", "n1", (0,)), ("trunk", "n5", (1,)), ("left", "n2"), batch=4)
    assert surviving_coverage(tree, trunks, {"n5"}) == 0.0


def test_a_new_attempt_is_too_late_where_every_prediction_says_so() -> None:
    assert comes_too_late(decided(all_ms=(100.0, None, 150.0)), 99.0)
    assert not comes_too_late(decided(all_ms=(100.0, None, 150.0)), 100.0)
    assert not comes_too_late(decided(all_ms=(None,)), 1.0)
    assert not comes_too_late(None, 1.0)
