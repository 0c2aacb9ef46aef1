"""Partial results: what the branches that are here say of their own classes, marked by their coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.task import TaskResult
from splitplace.services.result_aggregator.core import ResultAggregatorCore
from tests.services.result_aggregator.feeding import Output, add, add_all, knowing
from tests.support.outputs import (
    all_scores,
    assert_right,
    logits_application,
    outputs_of,
    random_logits,
    softmax,
)

CLASSES_OF = {
    stage.name: stage.classes
    for name in ("star", "tree")
    for stage in logits_application().variant(name).sinks
}
EVERY_CLASS = 5


def settled(aggregation: ResultAggregatorCore, task: str = "sensor.1") -> TaskResult:
    result = aggregation.settle(task)
    assert result is not None
    return result


def of_stages(outputs: list[Output], *stages: str) -> list[Output]:
    return [output for output in outputs if output[0].stage in stages]


@pytest.mark.parametrize("stage", ["s0", "s1", "left", "right"])
def test_one_branch_alone_answers_with_its_best_class_and_the_share_of_its_classes(stage: str) -> None:
    logits = random_logits(10)
    variant = "star" if stage.startswith("s") else "tree"
    aggregation = knowing()
    assert add_all(aggregation, of_stages(outputs_of(logits, variant), stage)) == []

    result = settled(aggregation)
    own = list(CLASSES_OF[stage])
    share = len(own) / EVERY_CLASS
    assert result.coverage == pytest.approx(share)
    probabilities = softmax(logits[:, own])
    for row, score in enumerate(all_scores(result)):
        assert score.index == own[logits[row, own].argmax()]
        assert score.confidence == pytest.approx(share * probabilities[row].max(), rel=1e-9)


def test_coverage_is_the_mean_over_inputs_where_branches_got_differently_far() -> None:
    outputs = outputs_of(random_logits(10), "star", micro_batch=4)
    aggregation = knowing()
    last = [output for output in outputs if output[0].micro_batch == 2 and output[0].stage == "s1"]
    add_all(aggregation, [*of_stages(outputs, "s0"), *last])
    assert settled(aggregation).coverage == pytest.approx((8 * 3 / 5 + 2 * 1) / 10)


def test_while_some_input_was_seen_by_no_branch_there_is_no_partial_result() -> None:
    outputs = of_stages(outputs_of(random_logits(10), "star", micro_batch=4), "s0")
    aggregation = knowing()
    add_all(aggregation, outputs[:-1])
    assert aggregation.settle("sensor.1") is None
    add(aggregation, outputs[-1])
    assert settled(aggregation).coverage == pytest.approx(0.6)


@pytest.mark.parametrize("variant", ["whole", "chain"])
def test_variants_without_branches_have_no_partial_result(variant: str) -> None:
    aggregation = knowing()
    add_all(aggregation, outputs_of(random_logits(10), variant)[:-1])
    assert aggregation.settle("sensor.1") is None


def test_of_unknown_and_of_finished_tasks_there_is_nothing_to_settle() -> None:
    aggregation = knowing()
    add_all(aggregation, of_stages(outputs_of(random_logits(4), "star"), "s0"))
    aggregation.finish("sensor.1", 1, 0.0)
    assert aggregation.settle("sensor.1") is None
    assert aggregation.settle("sensor.2") is None


def test_asking_does_not_stop_the_full_result_from_coming() -> None:
    logits = random_logits(8)
    outputs = outputs_of(logits, "star")
    aggregation = knowing()
    add_all(aggregation, outputs[:-1])
    assert settled(aggregation).coverage < 1
    result = add(aggregation, outputs[-1])
    assert result is not None
    assert result.coverage == 1
    assert_right(result, logits)


def test_what_a_newer_attempt_replaces_is_given_out_once() -> None:
    logits = random_logits(8)
    aggregation = knowing()
    add_all(aggregation, of_stages(outputs_of(logits, "star"), "s1"))
    newer = outputs_of(logits, "star", attempt=2)
    replaced = add(aggregation, newer[0])
    assert replaced is not None
    assert replaced.attempt == 1
    assert replaced.coverage == pytest.approx(0.4)
    assert add(aggregation, newer[1]) is None


def test_a_newer_attempt_of_one_output_gives_its_full_result_and_not_the_older_part() -> None:
    logits = random_logits(3)
    aggregation = knowing()
    add_all(aggregation, of_stages(outputs_of(logits, "star"), "s1"))
    (output,) = outputs_of(logits, "whole", attempt=2)
    result = add(aggregation, output)
    assert result is not None
    assert (result.attempt, result.coverage) == (2, 1.0)


@given(data=st.data(), variant=st.sampled_from(["star", "tree"]), seed=st.integers(0, 2**32 - 1))
def test_whichever_outputs_are_here_the_answer_is_the_best_class_among_theirs(
    data: st.DataObject, variant: str, seed: int
) -> None:
    logits = random_logits(9, seed)
    outputs = outputs_of(logits, variant, micro_batch=4)
    here = data.draw(st.sets(st.sampled_from(range(len(outputs))), max_size=len(outputs) - 1))
    aggregation = knowing()
    assert add_all(aggregation, [outputs[index] for index in sorted(here)]) == []
    known = np.full_like(logits, -np.inf)
    for index in here:
        header, columns = outputs[index]
        rows = slice(4 * header.micro_batch, 4 * header.micro_batch + len(columns))
        known[rows, list(CLASSES_OF[header.stage])] = columns
    result = aggregation.settle("sensor.1")
    if np.isinf(known.max(axis=1)).any():
        assert result is None
        return
    assert result is not None
    assert [score.index for score in all_scores(result)] == known.argmax(axis=1).tolist()
    assert result.coverage == pytest.approx(np.isfinite(known).mean())
    assert all(
        score.confidence <= result_share
        for score, result_share in zip(
            all_scores(result), np.isfinite(known).mean(axis=1) + 1e-9, strict=True
        )
    )
