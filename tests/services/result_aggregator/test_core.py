"""Merged outputs are what direct computation gives, whatever happens to them on the way."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitplace.messages.frames import FrameError
from splitplace.messages.limits import MAX_BATCH
from splitplace.messages.task import StageReport
from splitplace.services.result_aggregator.core import MAX_EARLY, ResultAggregatorCore
from splitplace.services.result_aggregator.merging import condense
from tests.services.result_aggregator.feeding import add, add_all, knowing
from tests.support.outputs import (
    all_scores,
    assert_right,
    logits_application,
    outputs_of,
    placed_as,
    random_logits,
)

VARIANTS = ("whole", "chain", "star", "tree")


@given(
    variant=st.sampled_from(VARIANTS),
    batch=st.integers(1, 21),
    micro_batch=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
    shuffle=st.randoms(use_true_random=False),
    data=st.data(),
)
def test_outputs_in_any_order_and_number_give_one_result_equal_to_direct_computation(
    *, variant: str, batch: int, micro_batch: int, seed: int, shuffle: Any, data: st.DataObject
) -> None:
    logits = random_logits(batch, seed)
    outputs = outputs_of(logits, variant, micro_batch=micro_batch)
    repeats = data.draw(st.lists(st.sampled_from(range(len(outputs))), max_size=10))
    arrivals = [*range(len(outputs)), *repeats]
    shuffle.shuffle(arrivals)

    (result,) = add_all(knowing(), [outputs[index] for index in arrivals])
    (in_order,) = add_all(knowing(), outputs)
    assert result == in_order
    assert_right(result, logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_stage_is_reported_once_with_its_node_and_the_sum_over_micro_batches(variant: str) -> None:
    (result,) = add_all(knowing(), outputs_of(random_logits(10), variant, micro_batch=4))
    stages = logits_application().variant(variant).stages
    assert result.stages == tuple(
        StageReport(stage=stage.name, node=f"node-{stage.name}", queue_ms=3.75, compute_ms=4.5)
        for stage in stages
    )
    assert (result.micro_batches, result.attempt, result.variant) == (3, 1, variant)


def test_moved_bytes_are_those_of_the_outputs_and_of_all_tensors_before_them() -> None:
    (result,) = add_all(knowing(), outputs_of(random_logits(10), "chain", micro_batch=4))
    assert result.moved_bytes == 3 * 3 * 100 + 10 * 5 * 4


def test_float16_logits_are_merged_like_others() -> None:
    logits = random_logits(6).astype(np.float16)
    (result,) = add_all(knowing(), outputs_of(logits, "star"))
    assert_right(result, logits)


@given(scale=st.sampled_from([0.0, 1e-30, 1e4, 3e38]), variant=st.sampled_from(VARIANTS))
def test_confidence_stays_a_ratio_for_equal_tiny_and_enormous_logits(scale: float, variant: str) -> None:
    signs = np.array([[1, -1, 0, 1, -1], [0, 0, 0, 0, 1]], np.float32)
    logits = (signs * np.float32(scale)).astype(np.float32)
    (result,) = add_all(knowing(), outputs_of(logits, variant))
    assert_right(result, logits)


def test_of_equally_likely_classes_in_two_branches_the_smaller_wins_in_any_order() -> None:
    logits = np.zeros((1, 5), np.float32)
    outputs = outputs_of(logits, "star")
    for order in (outputs, outputs[::-1]):
        (result,) = add_all(knowing(), order)
        (score,) = all_scores(result)
        assert score.index == 0
        assert score.confidence == pytest.approx(0.2)


def test_a_newer_attempt_replaces_the_older_and_outputs_of_the_older_are_ignored() -> None:
    old, new = random_logits(8, 1), random_logits(8, 2)
    aggregation = knowing()
    first = outputs_of(old, "star")
    second = outputs_of(new, "tree", attempt=2)
    assert add_all(aggregation, first[:-1]) == []
    (replaced,) = add_all(aggregation, second[:-1])
    assert replaced.attempt == 1
    assert replaced.coverage == pytest.approx(0.8)
    assert add(aggregation, first[-1]) is None
    result = add(aggregation, second[-1])
    assert result is not None
    assert (result.attempt, result.variant) == (2, "tree")
    assert_right(result, new)


def test_a_broken_output_of_a_newer_attempt_leaves_the_older_alone() -> None:
    logits = random_logits(8)
    aggregation = knowing()
    outputs = outputs_of(logits, "whole")
    add(aggregation, outputs[0])
    with pytest.raises(FrameError):
        add(aggregation, outputs[1], attempt=2, stage="no-such-stage")
    assert add(aggregation, outputs[1]) is not None


def test_a_finished_task_is_not_begun_again_by_late_duplicates_but_by_a_newer_attempt() -> None:
    aggregation = knowing()
    outputs = outputs_of(random_logits(8), "whole")
    assert len(add_all(aggregation, outputs)) == 1
    assert add_all(aggregation, outputs) == []
    assert len(aggregation) == 0
    assert len(add_all(aggregation, outputs_of(random_logits(8), "whole", attempt=2))) == 1


def test_what_the_gateway_calls_finished_is_dropped_and_stays_dropped() -> None:
    aggregation = knowing()
    outputs = outputs_of(random_logits(8), "whole")
    add(aggregation, outputs[0])
    aggregation.finish("sensor.1", 1, 0.0)
    assert (len(aggregation), aggregation.held_bytes) == (0, 0)
    assert add_all(aggregation, outputs) == []
    assert len(aggregation) == 0


def test_finished_tasks_are_forgotten_after_a_while() -> None:
    aggregation = knowing()
    outputs = outputs_of(random_logits(8), "whole")
    aggregation.finish("sensor.1", 1, 0.0)
    aggregation.expire(59_999.0)
    assert add(aggregation, outputs[0], 59_999.0) is None
    assert len(aggregation) == 0
    aggregation.expire(60_000.0)
    add(aggregation, outputs[0], 60_000.0)
    assert len(aggregation) == 1


def test_outputs_that_come_before_the_catalogue_wait_for_it() -> None:
    logits = random_logits(8)
    aggregation = ResultAggregatorCore()
    assert add_all(aggregation, outputs_of(logits, "tree")) == []
    assert aggregation.add_application(logits_application("another"), 500.0) == ()
    (result,) = aggregation.add_application(logits_application(), 999.0)
    assert_right(result, logits)
    assert aggregation.add_application(logits_application(), 999.0) == ()


def test_outputs_that_come_before_their_placement_wait_for_it() -> None:
    logits = random_logits(8)
    aggregation = knowing()
    outputs = outputs_of(logits, "tree")
    for header, columns in outputs:
        assert aggregation.add(header, condense(columns), 0.0) is None
    assert aggregation.place(placed_as(outputs[0][0].model_copy(update={"attempt": 2})), 500.0) == ()
    (result,) = aggregation.place(placed_as(outputs[0][0]), 999.0)
    assert_right(result, logits)


@pytest.mark.parametrize("place", range(3))
def test_an_output_counts_only_if_every_stage_ran_where_it_was_placed(place: int) -> None:
    """A node without a stage can forge outputs, or inputs of another node: the trace then names it."""
    logits, lies = random_logits(4), 100 * random_logits(4, seed=1)
    aggregation = knowing()
    (right,), (forged,) = outputs_of(logits, "chain"), outputs_of(lies, "chain")
    trace = list(forged[0].trace)
    trace[place] = trace[place].model_copy(update={"node": "intruder"})
    with pytest.raises(FrameError, match="intruder"):
        add(aggregation, forged, trace=tuple(trace))
    result = add(aggregation, right)
    assert result is not None
    assert_right(result, logits)


def test_a_sender_without_a_last_stage_is_known_before_its_first_chunk_is_kept() -> None:
    aggregation = knowing()
    (output,) = outputs_of(random_logits(4), "chain")
    header = output[0]
    last = header.trace[-1].model_copy(update={"node": "intruder"})
    forged = header.model_copy(update={"trace": (*header.trace[:-1], last)})
    assert aggregation.may_send(forged), "nobody knows yet"
    aggregation.place(placed_as(header), 0.0)
    assert aggregation.may_send(header)
    assert not aggregation.may_send(forged)


def test_a_later_placement_of_the_same_attempt_changes_nothing() -> None:
    aggregation = knowing()
    (output,) = outputs_of(random_logits(4), "chain")
    placed = placed_as(output[0])
    aggregation.place(placed, 0.0)
    moved = tuple(stage.model_copy(update={"node": "intruder"}) for stage in placed.stages)
    aggregation.place(placed.model_copy(update={"stages": moved}), 0.0)
    assert aggregation.add(output[0], condense(output[1]), 0.0) is not None


def test_outputs_wait_for_the_catalogue_no_longer_than_somebody_wants_them() -> None:
    aggregation = ResultAggregatorCore()
    add_all(aggregation, outputs_of(random_logits(3), "whole"))
    aggregation.add_application(logits_application("another"), 900.0)
    assert aggregation.add_application(logits_application(), 1000.0) == ()


def test_only_so_many_outputs_wait_for_the_catalogue() -> None:
    aggregation = ResultAggregatorCore()
    for number in range(MAX_EARLY + 10):
        add_all(aggregation, outputs_of(random_logits(1), "whole", task=f"sensor.{number}"))
    assert len(aggregation.add_application(logits_application(), 0.0)) == MAX_EARLY


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batches": 3},
        {"variant": "star"},
        {"variant": "no-such-variant"},
        {"stage": "c0"},
        {"stage": "no-such-stage"},
        {"micro_batch": 2},
        {"trace": (StageReport(stage="c2", node="another", queue_ms=0.0, compute_ms=0.0),)},
        {"trace": (StageReport(stage="whole", node="n", queue_ms=0.0, compute_ms=0.0),)},
        {"trace": ()},
    ],
)
def test_an_output_that_contradicts_catalogue_or_outputs_before_is_refused_and_harms_nothing(
    changes: dict[str, Any],
) -> None:
    logits = random_logits(8)
    aggregation = knowing()
    first, second = outputs_of(logits, "chain")
    add(aggregation, first)
    with pytest.raises(FrameError):
        add(aggregation, second, **changes)
    result = add(aggregation, second)
    assert result is not None
    assert_right(result, logits)


def test_outputs_with_too_many_or_too_few_columns_or_rows_are_refused() -> None:
    aggregation = knowing()
    (first, left), (second, right), *_ = outputs_of(random_logits(8), "star")
    for logits in (left[:, :-1], np.concatenate([left, left], axis=1)):
        with pytest.raises(FrameError, match="columns"):
            add(aggregation, (first, logits))
    add(aggregation, (first, left))
    with pytest.raises(FrameError, match="rows"):
        add(aggregation, (second, right[:-1]))
    assert add(aggregation, (second, right)) is None


def test_a_task_cannot_grow_beyond_the_greatest_batch() -> None:
    aggregation = knowing()
    first, second = outputs_of(random_logits(2 * MAX_BATCH), "whole", micro_batch=MAX_BATCH)
    add(aggregation, first)
    with pytest.raises(FrameError, match="rows"):
        add(aggregation, second)


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((2,), np.float32),
        np.zeros((2, 2, 2), np.float32),
        np.zeros((2, 2), np.uint8),
    ],
)
def test_what_are_no_logits_is_refused(logits: NDArray[Any]) -> None:
    with pytest.raises(FrameError):
        condense(logits)


def test_a_task_is_dropped_when_nobody_wants_its_answer_any_more() -> None:
    aggregation = knowing()
    add(aggregation, outputs_of(random_logits(8), "whole")[0], 100.0)
    assert aggregation.expire(1099.0) == 0
    assert aggregation.expire(1100.0) == 1
    assert (len(aggregation), aggregation.held_bytes) == (0, 0)


def test_beyond_the_bounds_the_task_longest_without_progress_is_dropped() -> None:
    aggregation = ResultAggregatorCore(max_tasks=2)
    aggregation.add_application(logits_application(), 0.0)
    outputs = {name: outputs_of(random_logits(12), "whole", task=f"sensor.{name}") for name in "abc"}
    add(aggregation, outputs["a"][0])
    add(aggregation, outputs["b"][0])
    add(aggregation, outputs["a"][1])
    add(aggregation, outputs["c"][0])
    assert len(aggregation) == 2
    assert add(aggregation, outputs["a"][2]) is not None
    assert add_all(aggregation, outputs["b"][1:]) == []


def test_memory_of_outputs_is_bounded_and_given_back() -> None:
    aggregation = ResultAggregatorCore(max_bytes=10_000)
    aggregation.add_application(logits_application(), 0.0)
    for number in range(100):
        add(aggregation, outputs_of(random_logits(8), "whole", task=f"sensor.{number}")[0])
        assert aggregation.held_bytes <= 10_000
    assert 10 < len(aggregation) < 100
    for number in range(100):
        aggregation.finish(f"sensor.{number}", 1, 0.0)
    assert aggregation.held_bytes == 0


def test_sums_beyond_what_a_message_allows_are_cut_off() -> None:
    liar = (StageReport(stage="whole", node="node-whole", queue_ms=1e12, compute_ms=1e12),)
    outputs = outputs_of(random_logits(8), "whole", trace=liar, moved_bytes=2**53)
    (result,) = add_all(knowing(), outputs)
    assert (result.stages[0].queue_ms, result.moved_bytes) == (1e12, 2**53)
