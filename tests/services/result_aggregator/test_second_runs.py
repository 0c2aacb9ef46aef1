"""The output of a micro-batch that comes first counts, whichever run it is from."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitplace.messages.frames import FrameError, TensorHeader
from splitplace.messages.placing import StagePlacement
from splitplace.messages.second_run import SecondRun
from splitplace.messages.task import StageReport, TaskPlaced, TaskResult
from splitplace.policies.lagging import EXTRA_MS, USUAL
from splitplace.services.result_aggregator.core import ResultAggregatorCore
from splitplace.services.result_aggregator.merging import condense
from tests.services.result_aggregator.feeding import knowing
from tests.support.outputs import assert_right, outputs_of, placed_as, random_logits

Output = tuple[TensorHeader, NDArray[Any]]
LOGITS = random_logits(14)
DUE_MS = 100 * USUAL + EXTRA_MS


def first_placement(variant: str = "whole") -> TaskPlaced:
    (header, _), *_ = outputs_of(LOGITS, variant)
    return placed_as(header).model_copy(update={"batch": 14, "micro_batch": 4, "predicted_ms": 100.0})


def second_run(*numbers: int, variant: str = "whole") -> SecondRun:
    """The stages of micro-batches that are all full, on nodes whose names begin with `other`."""
    first = first_placement(variant)
    stages = tuple(
        StagePlacement(stage=stage.stage, node=f"other-{stage.stage}", work_ms=1.0) for stage in first.stages
    )
    placed = first.model_copy(update={"batch": 4 * len(numbers), "stages": stages})
    return SecondRun(task=first.task, attempt=1, micro_batches=numbers, placed=placed)


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
    assert (lagging.attempt, lagging.micro_batches) == (1, (2, 3))
    assert aggregation.lagging(DUE_MS + 1) == []


def test_tasks_with_branches_and_finished_ones_are_never_overdue() -> None:
    assert placed_core("star").lagging(1e9) == []
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
