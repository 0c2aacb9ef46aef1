"""A second run belongs to the attempt: it is sent once, and whichever output comes first is the answer."""

from typing import Any

import numpy as np
import pytest

from splitplace.messages.frames import TensorHeader, decode_tensor, unpack
from splitplace.messages.placing import StagePlacement
from splitplace.messages.second_run import LostReplica, SecondPart, SecondRun
from splitplace.messages.task import StageReport, TaskPlaced
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.dispatch import input_frames
from splitplace.services.gateway.fitting import misfit
from splitplace.services.gateway.instructions import Announce, Cancel, Dispatch, Finish
from splitplace.services.gateway.task import RetryRules
from tests.services.gateway.stimuli import (
    BOOT,
    OTHER_BOOT,
    decided,
    failure,
    kinds,
    placed,
    result,
    star,
    task,
)
from tests.support.outputs import logits_application


def second(attempt: int = 1, node: str = "n2", numbers: tuple[int, ...] = (0,)) -> SecondRun:
    again = placed(attempt, (node,)).model_copy(update={"batch": len(numbers), "micro_batch": 1})
    return SecondRun(
        task="camera.1", attempt=attempt, parts=(SecondPart(micro_batches=numbers, placed=again),)
    )


ONLINE = {"n1": BOOT, "n2": BOOT, "n3": BOOT}


def running() -> GatewayCore:
    """A task of two micro-batches of one image that runs on n1."""
    core = GatewayCore(RetryRules())
    core.nodes_online(ONLINE, 0.0)
    core.accept(task(), 0.0)
    core.decided(decided(), 0.0)
    core.placed(placed().model_copy(update={"micro_batch": 1}), 0.0)
    return core


def test_what_is_overdue_leaves_its_queue_and_is_sent_again() -> None:
    leave, dispatch = running().second_run(second(numbers=(1,)), 100.0)
    assert leave == Cancel("camera.1", 1, ("n1",), (1,))
    assert isinstance(dispatch, Dispatch)
    assert (dispatch.placed.nodes, dispatch.second) == (("n1",), second(numbers=(1,)))


@pytest.mark.parametrize("other", [second(attempt=2), second(node="gone"), second(numbers=(1, 2))])
def test_a_second_run_that_does_not_fit_is_ignored(other: SecondRun) -> None:
    assert running().second_run(other, 100.0) == []


def test_there_is_one_second_run_in_an_attempt() -> None:
    core = running()
    assert core.second_run(second(), 100.0)
    assert core.second_run(second(node="n3"), 200.0) == []


def test_a_new_attempt_has_none_yet() -> None:
    core = running()
    core.second_run(second(), 100.0)
    core.nodes_online({"n1": BOOT, "n3": BOOT}, 200.0)
    assert core.tasks["camera.1"].attempt == 2
    assert core.tasks["camera.1"].second is None


def test_a_task_that_waits_for_its_placement_has_no_second_run() -> None:
    core = GatewayCore(RetryRules())
    core.accept(task(), 0.0)
    assert core.second_run(second(), 10.0) == []


def test_the_slow_node_may_die_or_fail_and_the_node_of_the_second_run_may_not() -> None:
    core = running()
    core.second_run(second(), 100.0)
    assert core.stage_failed(failure("n1"), 150.0) == []
    assert core.nodes_online({"n1": OTHER_BOOT, "n2": BOOT}, 200.0) == []
    assert kinds(core.nodes_online({"n1": OTHER_BOOT}, 300.0)) == ["Cancel", "Announce"]


def test_a_failure_of_the_second_run_is_one_of_the_attempt() -> None:
    core = running()
    core.second_run(second(), 100.0)
    cancel, _ = core.stage_failed(failure("n2"), 150.0)
    assert cancel == Cancel("camera.1", 1, ("n1", "n2"))


def test_the_answer_names_who_gave_it_and_drops_the_other_run() -> None:
    core = running()
    core.second_run(second(), 100.0)
    reports = tuple(StageReport(stage="s0", node=name, queue_ms=0, compute_ms=1) for name in ("n1", "n2"))
    given = result().model_copy(update={"stages": reports[1:]})
    cancel, finish = core.result(given, 200.0)
    assert cancel == Cancel("camera.1", 1, ("n1", "n2"))
    assert isinstance(finish, Finish)
    assert finish.nodes == ("n2",)
    assert core.result(given, 201.0) == []


def sharing() -> GatewayCore:
    """A task of two micro-batches that n1 and n2 share."""
    core = GatewayCore(RetryRules(replace_ms=WAIT_MS))
    core.nodes_online(ONLINE, 0.0)
    core.accept(task(), 0.0)
    core.decided(decided(), 0.0)
    shares = tuple(
        StagePlacement(stage="s0", node=node, work_ms=1.0, micro_batches=(number,))
        for number, node in enumerate(("n1", "n2"))
    )
    core.placed(placed().model_copy(update={"micro_batch": 1, "stages": shares}), 0.0)
    return core


WAIT_MS = 300.0
LOST = LostReplica(task="camera.1", attempt=1, node="n1")


def without(*names: str) -> dict[str, str]:
    return {name: boot for name, boot in ONLINE.items() if name not in names}


def instead(node: str = "n3") -> SecondRun:
    return second(node=node).model_copy(update={"lost": "n1"})


def test_the_work_of_a_lost_replica_is_asked_for_and_sent_to_others() -> None:
    core = sharing()
    assert core.nodes_online(without("n1"), 100.0) == [LOST]
    leave, dispatch = core.second_run(instead(), 110.0)
    assert leave == Cancel("camera.1", 1, ("n1",), (0,))
    assert isinstance(dispatch, Dispatch)
    assert core.time_passed(100.0 + WAIT_MS) == []
    assert kinds(core.result(result(), 500.0)) == ["Cancel", "Finish"]


def test_a_replica_that_fails_is_lost_as_well() -> None:
    core = sharing()
    assert core.stage_failed(failure("n1"), 100.0) == [LOST]
    assert core.tasks["camera.1"].avoid == ("n1",)


def test_a_replica_that_fails_again_is_neither_asked_for_again_nor_awaited_longer() -> None:
    core = sharing()
    core.stage_failed(failure("n1"), 100.0)
    assert core.stage_failed(failure("n1"), 200.0) == []
    assert core.next_due_ms == 100.0 + WAIT_MS


def test_other_branches_of_the_micro_batches_of_a_lost_replica_stay_in_their_queues() -> None:
    core = GatewayCore(RetryRules(replace_ms=WAIT_MS))
    core.nodes_online(ONLINE, 0.0)
    core.accept(task(), 0.0)
    left = [
        StagePlacement(stage="left", node=node, work_ms=1.0, micro_batches=(number,))
        for number, node in enumerate(("n1", "n2"))
    ]
    right = StagePlacement(stage="right", node="n3", work_ms=1.0)
    core.placed(star().model_copy(update={"micro_batch": 1, "stages": (*left, right)}), 0.0)
    assert core.nodes_online(without("n1"), 100.0) == [LOST]
    leave, _ = core.second_run(instead("n2"), 110.0)
    assert leave == Cancel("camera.1", 1, ("n1",), (0,))


def test_where_no_second_run_comes_the_next_attempt_begins_and_avoids_nobody_else() -> None:
    core = sharing()
    core.nodes_online(without("n1"), 100.0)
    assert core.next_due_ms == 100.0 + WAIT_MS
    assert core.time_passed(99.0 + WAIT_MS) == []
    cancel, announce = core.time_passed(100.0 + WAIT_MS)
    assert kinds((cancel,)) == ["Cancel"]
    assert isinstance(announce, Announce)
    assert (announce.attempt, announce.avoid) == (2, ())
    assert core.tasks["camera.1"].trouble == "node n1 died while it worked on this"
    assert core.second_run(instead(), 500.0) == []


@pytest.mark.parametrize(
    ("seconds", "gone"), [((), "n2"), ((instead("n3"),), "n2"), ((instead("n3"),), "n3")]
)
def test_a_second_loss_costs_the_attempt(seconds: tuple[SecondRun, ...], gone: str) -> None:
    core = sharing()
    core.nodes_online(without("n1"), 100.0)
    for each in seconds:
        core.second_run(each, 110.0)
    assert kinds(core.nodes_online(without("n1", gone), 120.0)) == ["Cancel", "Announce"]


def test_a_node_that_has_all_micro_batches_of_a_stage_costs_the_attempt() -> None:
    core = GatewayCore(RetryRules(replace_ms=WAIT_MS))
    core.nodes_online(ONLINE, 0.0)
    core.accept(task(), 0.0)
    core.placed(placed(nodes=("n1", "n2")), 0.0)
    assert kinds(core.nodes_online(without("n1"), 100.0)) == ["Cancel", "Announce"]


def test_a_result_of_both_runs_fits_and_one_of_a_stranger_does_not() -> None:
    core = running()
    known = core.tasks["camera.1"]

    def of(*names: str) -> Any:
        reports = tuple(StageReport(stage="s0", node=name, queue_ms=0, compute_ms=1) for name in names)
        return result().model_copy(update={"stages": reports})

    assert misfit(of("n1", "n2"), known, None) == "stage s0 was not placed on n2"
    core.second_run(second(), 100.0)
    assert misfit(of("n1", "n2"), known, None) is None
    assert misfit(of("n3"), known, None) == "stage s0 was not placed on n3"


def test_frames_of_a_second_run_keep_their_numbers() -> None:
    inputs = np.arange(7 * 8, dtype=np.uint8).reshape(7, 8)

    def whole(batch: int, node: str) -> TaskPlaced:
        stages = (StagePlacement(stage="whole", node=node, work_ms=1.0),)
        changes = {"application": "app", "batch": batch, "micro_batch": 2, "stages": stages}
        return placed().model_copy(update=changes)

    run = SecondPart(micro_batches=(1, 3), placed=whole(3, "b"))
    frames = list(
        input_frames(logits_application(), whole(7, "a"), inputs, 100.0, compress=False, second=run)
    )
    assert [node for node, _ in frames] == ["b", "b"]
    for number, (_, frame) in zip((1, 3), frames, strict=True):
        header, body = unpack(TensorHeader, frame)
        assert (header.micro_batch, header.micro_batches, header.second_run) == (number, 4, True)
        assert np.array_equal(decode_tensor(header, body), inputs[2 * number : 2 * number + 2])


def test_frames_of_a_second_run_go_to_its_branches_alone() -> None:
    inputs = np.arange(4 * 8, dtype=np.uint8).reshape(4, 8)

    def tree(batch: int, node: str, *names: str) -> TaskPlaced:
        stages = tuple(StagePlacement(stage=name, node=f"{node}-{name}", work_ms=1.0) for name in names)
        changes = {"application": "app", "variant": "tree", "batch": batch, "micro_batch": 2}
        return placed().model_copy(update=changes | {"stages": stages})

    first = tree(4, "first", "trunk", "left", "middle", "right")
    run = SecondPart(micro_batches=(1,), placed=tree(2, "other", "trunk", "middle", "right"))
    ((node, frame),) = input_frames(logits_application(), first, inputs, 100.0, compress=False, second=run)
    header, _ = unpack(TensorHeader, frame)
    route = header.route
    assert (node, header.micro_batch) == ("other-trunk", 1)
    assert route is not None
    (middle,) = route.next
    (right,) = middle.next
    assert (middle.node, right.node, right.next) == ("other-middle", "other-right", ())


def test_parts_of_a_second_run_are_of_its_attempt_and_share_no_stage() -> None:
    one = second(numbers=(0,)).parts[0]
    with pytest.raises(ValueError, match="in common"):
        SecondRun(task="camera.1", attempt=1, parts=(one, one))
    with pytest.raises(ValueError, match="another task or attempt"):
        SecondRun(task="camera.1", attempt=2, parts=(one,))
    with pytest.raises(ValueError, match="are placed of"):
        SecondPart(micro_batches=(0, 1), placed=one.placed)
