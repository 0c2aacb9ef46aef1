"""The output of a micro-batch that comes first counts, whichever run it is from."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitplace.messages.frames import FrameError, TensorHeader
from splitplace.messages.placing import StagePlacement
from splitplace.messages.second_run import LostReplica, OverdueOutputs, SecondPart, SecondRun
from splitplace.messages.task import StageReport, TaskPlaced, TaskResult
from splitplace.policies.lagging import EXTRA_MS, USUAL
from splitplace.services.result_aggregator.core import ResultAggregatorCore
from splitplace.services.result_aggregator.merging import condense
from tests.services.result_aggregator.feeding import knowing
from tests.support.outputs import assert_right, outputs_of, placed_as, random_logits

Output = tuple[TensorHeader, NDArray[Any]]
LOGITS = random_logits(14)
SPREAD = {"s0": (0, 2), "s1": (1,)}
"""Micro-batches of each branch that run again."""
DUE_MS = 100 * USUAL + EXTRA_MS


def first_placement(variant: str = "whole") -> TaskPlaced:
    (header, _), *_ = outputs_of(LOGITS, variant)
    return placed_as(header).model_copy(update={"batch": 14, "micro_batch": 4, "predicted_ms": 100.0})


def second_run(*numbers: int, variant: str = "whole", only: tuple[str, ...] = ()) -> SecondRun:
    """The stages of micro-batches that are all full, on nodes whose names begin with `other`."""
    first = first_placement(variant)
    stages = tuple(
        StagePlacement(stage=stage.stage, node=f"other-{stage.stage}", work_ms=1.0)
        for stage in first.stages
        if not only or stage.stage in only
    )
    placed = first.model_copy(update={"batch": 4 * len(numbers), "stages": stages})
    part = SecondPart(micro_batches=numbers, placed=placed)
    return SecondRun(task=first.task, attempt=1, parts=(part,))


def again(output: Output) -> Output:
    """The same output from the second run."""
    header, logits = output
    trace = tuple(
        StageReport(stage=report.stage, node=f"other-{report.stage}", queue_ms=0.0, compute_ms=1.0)
        for report in header.trace
    )
    return header.model_copy(update={"trace": trace, "second_run": True}), logits


def placed_core(variant: str = "whole") -> ResultAggregatorCore:
    aggregation = knowing()
    aggregation.place(first_placement(variant), 0.0)
    return aggregation


def give(aggregation: ResultAggregatorCore, output: Output) -> TaskResult | None:
    header, logits = output
    return aggregation.add(header, condense(logits), 1.0)


def test_an_attempt_that_is_overdue_is_told_once_with_what_is_missing() -> None:
    aggregation = placed_core()
    for output in outputs_of(LOGITS, "whole")[:2]:
        give(aggregation, output)
    assert aggregation.lagging_at_ms == DUE_MS
    assert aggregation.lagging(DUE_MS - 1) == []
    (lagging,) = aggregation.lagging(DUE_MS)
    assert (lagging.attempt, lagging.outputs) == (1, (OverdueOutputs(micro_batches=(2, 3)),))
    assert aggregation.lagging(DUE_MS + 1) == []


def test_what_a_lost_replica_has_not_given_is_told_at_once() -> None:
    aggregation = knowing()
    first = first_placement()
    shares = {"near": (0, 2), "far": (1, 3)}
    stages = tuple(
        StagePlacement(stage="whole", node=node, work_ms=1.0, micro_batches=numbers)
        for node, numbers in shares.items()
    )
    aggregation.place(first.model_copy(update={"stages": stages}), 0.0)

    def told(node: str, attempt: int = 1) -> tuple[OverdueOutputs, ...]:
        lagging = aggregation.lost(LostReplica(task=first.task, attempt=attempt, node=node))
        assert lagging is None or lagging.lost == node
        return lagging.outputs if lagging is not None else ()

    assert told("far") == (OverdueOutputs(micro_batches=(1, 3)),)
    header, logits = outputs_of(LOGITS, "whole")[1]
    report = StageReport(stage="whole", node="far", queue_ms=0.0, compute_ms=1.0)
    give(aggregation, (header.model_copy(update={"trace": (report,)}), logits))
    assert told("far") == (OverdueOutputs(micro_batches=(3,)),)
    assert told("stranger") == told("far", attempt=2) == ()
    aggregation.finish(first.task, 1, 10.0)
    assert told("far") == ()


def test_branches_that_are_overdue_are_named() -> None:
    aggregation = placed_core("tree")
    for output in outputs_of(LOGITS, "tree"):
        if output[0].stage == "left" or output[0].micro_batch == 0:
            give(aggregation, output)
    (lagging,) = aggregation.lagging(DUE_MS)
    assert lagging.outputs == (OverdueOutputs(branch="right", micro_batches=(1, 2, 3)),)


@given(order=st.permutations(range(8)))
def test_a_branch_that_runs_again_completes_the_others(order: list[int]) -> None:
    """The outputs of one branch come from its second run, along with some that came before."""
    aggregation = placed_core("tree")
    aggregation.second_run(second_run(0, 1, 2, variant="tree", only=("trunk", "middle", "right")))
    outputs = outputs_of(LOGITS, "tree")
    lefts = [output for output in outputs if output[0].stage == "left"]
    rights = [output for output in outputs if output[0].stage == "right"]
    sent = [*lefts, *(again(output) for output in rights[:3]), rights[3]]
    results = [result for index in order if (result := give(aggregation, sent[index])) is not None]
    (result,) = results
    assert_right(result, LOGITS)
    nodes = {report.node for report in result.stages}
    assert {"node-left", "other-right", "node-right"} <= nodes
    assert "other-left" not in nodes


@given(order=st.permutations(range(8)))
def test_each_branch_may_have_a_second_run_of_its_own(order: list[int]) -> None:
    aggregation = placed_core("star")
    zero, one = (second_run(*numbers, variant="star", only=(name,)) for name, numbers in SPREAD.items())
    aggregation.second_run(zero.model_copy(update={"parts": (*zero.parts, *one.parts)}))
    sent = [
        again(output) if output[0].micro_batch in SPREAD[output[0].stage] else output
        for output in outputs_of(LOGITS, "star")
    ]
    results = [result for index in order if (result := give(aggregation, sent[index])) is not None]
    (result,) = results
    assert_right(result, LOGITS)


@pytest.mark.parametrize("only", [("trunk", "middle"), ("right",), ("trunk", "right"), ("trunk", "other")])
def test_a_second_run_of_stages_that_are_no_branches_is_ignored(only: tuple[str, ...]) -> None:
    aggregation = placed_core("tree")
    aggregation.second_run(second_run(0, variant="tree", only=only))
    right = next(output for output in outputs_of(LOGITS, "tree") if output[0].stage == "right")
    assert not aggregation.may_send(again(right)[0])


def test_a_branch_that_was_not_placed_again_has_no_second_output() -> None:
    aggregation = placed_core("tree")
    aggregation.second_run(second_run(0, variant="tree", only=("trunk", "left")))
    left, right = outputs_of(LOGITS, "tree")[:2]
    assert aggregation.may_send(again(left)[0])
    assert not aggregation.may_send(again(right)[0])


def test_finished_tasks_are_never_overdue() -> None:
    aggregation = placed_core()
    aggregation.finish("sensor.1", 1, 10.0)
    assert aggregation.lagging(1e9) == []


@pytest.mark.parametrize("variant", ["whole", "chain"])
@given(choice=st.lists(st.booleans(), min_size=4, max_size=4), shuffle=st.randoms(use_true_random=False))
def test_outputs_of_both_runs_in_any_order_give_one_right_answer(
    variant: str, choice: list[bool], shuffle: Any
) -> None:
    aggregation = placed_core(variant)
    aggregation.second_run(second_run(0, 1, 2, variant=variant))
    outputs = outputs_of(LOGITS, variant)
    sent = [*outputs, *(again(output) for output in outputs[:3])]
    if choice[3]:
        sent += sent[:2]
    shuffle.shuffle(sent)
    results = [result for output in sent if (result := give(aggregation, output)) is not None]
    (result,) = results
    assert_right(result, LOGITS)
    firsts = {header.micro_batch: header for header, _ in reversed(sent)}
    assert {report.node for report in result.stages} == {
        report.node for header in firsts.values() for report in header.trace
    }


def test_the_second_run_may_be_known_before_or_after_the_first_output() -> None:
    for early in (True, False):
        aggregation = placed_core()
        outputs = outputs_of(LOGITS, "whole")
        if early:
            aggregation.second_run(second_run(1, 2))
        assert give(aggregation, outputs[0]) is None
        if not early:
            aggregation.second_run(second_run(1, 2))
        assert aggregation.may_send(again(outputs[1])[0])
        assert give(aggregation, again(outputs[1])) is None
        assert give(aggregation, again(outputs[2])) is None
        assert give(aggregation, outputs[3]) is not None


def test_an_output_that_no_second_run_was_placed_to_give_is_refused() -> None:
    aggregation = placed_core()
    outputs = outputs_of(LOGITS, "whole")
    give(aggregation, outputs[0])
    header, logits = again(outputs[1])
    assert not aggregation.may_send(header)
    with pytest.raises(FrameError, match="second run"):
        aggregation.add(header, condense(logits), 1.0)
    aggregation.second_run(second_run(2))
    assert not aggregation.may_send(header)
    with pytest.raises(FrameError, match="second run"):
        aggregation.add(header, condense(logits), 1.0)
    stray = outputs[2][0].model_copy(update={"second_run": True})
    assert not aggregation.may_send(stray)


def test_only_the_first_second_run_of_a_known_attempt_counts() -> None:
    aggregation = knowing()
    aggregation.second_run(second_run(1))  # nothing was placed yet
    aggregation.place(first_placement(), 0.0)
    outputs = outputs_of(LOGITS, "whole")
    assert not aggregation.may_send(again(outputs[1])[0])
    aggregation.second_run(second_run(1))
    aggregation.second_run(second_run(2))
    assert aggregation.may_send(again(outputs[1])[0])
    assert not aggregation.may_send(again(outputs[2])[0])
