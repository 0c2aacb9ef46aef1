"""The outputs of replicas make one result; each counts only from the node that it was dealt to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitplace.messages.frames import FrameError, TensorHeader
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import TaskPlaced
from splitplace.services.result_aggregator.core import ResultAggregatorCore
from splitplace.services.result_aggregator.merging import condense
from tests.services.result_aggregator.feeding import knowing
from tests.support.outputs import assert_right, logits_application, outputs_of, placed_as, random_logits

Output = tuple[TensorHeader, NDArray[Any]]
BATCH = 14
NUMBERS = tuple(range(7))


def shared(header: TensorHeader, nodes: int = 2) -> TaskPlaced:
    """Every stage `s` on the nodes `node-s-0`, `node-s-1`, ..., in turn."""
    whole = placed_as(header)
    stages = tuple(
        StagePlacement(
            stage=stage.stage,
            node=f"{stage.node}-{index}",
            work_ms=1.0,
            micro_batches=NUMBERS[index::nodes],
        )
        for stage in whole.stages
        for index in range(nodes)
    )
    return TaskPlaced.model_validate({**dict(whole), "stages": stages})


def through_replicas(output: Output, nodes: int = 2) -> Output:
    header, logits = output
    trace = tuple(
        report.model_copy(update={"node": f"{report.node}-{header.micro_batch % nodes}"})
        for report in header.trace
    )
    return header.model_copy(update={"trace": trace}), logits


def outputs(variant: str) -> list[Output]:
    return [through_replicas(output) for output in outputs_of(LOGITS, variant, micro_batch=2)]


LOGITS = random_logits(BATCH)


def placed_core(header: TensorHeader) -> ResultAggregatorCore:
    aggregation = knowing()
    aggregation.place(shared(header), 0.0)
    return aggregation


@given(variant=st.sampled_from(["whole", "chain", "star", "tree"]), shuffle=st.randoms(use_true_random=False))
def test_outputs_of_replicas_in_any_order_give_the_answer_of_the_network(variant: str, shuffle: Any) -> None:
    made = outputs(variant)
    aggregation = placed_core(made[0][0])
    shuffle.shuffle(made)
    results = [aggregation.add(header, condense(logits), 0.0) for header, logits in made]
    assert results[:-1] == [None] * (len(made) - 1)
    (result,) = results[-1:]
    assert result is not None
    assert_right(result, LOGITS)
    stages = logits_application().variant(variant).stages
    assert [(report.stage, report.node, report.compute_ms) for report in result.stages] == [
        (stage.name, f"node-{stage.name}-{index}", sum(number + 0.5 for number in NUMBERS[index::2]))
        for stage in stages
        for index in range(2)
    ]


def test_an_output_from_another_replica_than_it_was_dealt_to_is_refused() -> None:
    (header, logits), *_ = outputs_of(LOGITS, "whole", micro_batch=2)
    aggregation = placed_core(header)
    wrong, _ = through_replicas((header.model_copy(update={"micro_batch": 1}), logits))
    stray = wrong.model_copy(update={"micro_batch": 0})
    assert not aggregation.may_send(stray)
    assert aggregation.may_send(wrong)
    with pytest.raises(FrameError, match="not placed so"):
        aggregation.add(stray, condense(logits), 0.0)


def test_a_micro_batch_beyond_the_placement_is_refused() -> None:
    (header, logits), *_ = outputs("whole")
    aggregation = placed_core(header)
    beyond = header.model_copy(update={"micro_batch": 7, "micro_batches": 9})
    assert not aggregation.may_send(beyond)
    with pytest.raises(FrameError, match="not placed so"):
        aggregation.add(beyond, condense(logits), 0.0)
