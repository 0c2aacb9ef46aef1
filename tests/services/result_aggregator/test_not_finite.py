"""NaN and infinity cost the inputs that they belong to, at once, and no other."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitplace.messages.task import TaskResult
from tests.services.result_aggregator.feeding import add_all, knowing
from tests.support.outputs import logits_application, outputs_of, random_logits, softmax

VARIANTS = ("whole", "chain", "star", "tree")


def result_of(logits: NDArray[Any], variant: str) -> TaskResult:
    (result,) = add_all(knowing(), outputs_of(logits, variant))
    return result


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_an_input_whose_outputs_are_not_finite_has_no_score_and_the_others_keep_theirs(
    value: float, variant: str, dtype: type
) -> None:
    logits: NDArray[Any] = random_logits(9).astype(dtype)
    clean = result_of(logits, variant)
    logits[4] = value
    result = result_of(logits, variant)
    assert result.scores[4] is None
    assert [score for row, score in enumerate(result.scores) if row != 4] == [
        score for row, score in enumerate(clean.scores) if row != 4
    ]
    assert result.coverage == 1.0
    assert result.finite == pytest.approx(8 / 9)


def test_a_branch_that_is_not_finite_for_an_input_costs_its_classes_there() -> None:
    logits = random_logits(4)
    branch = list(logits_application().variant("star").stages[1].classes)
    others = [column for column in range(5) if column not in branch]
    logits[2, branch[0]] = np.nan
    score = result_of(logits, "star").scores[2]
    assert score is not None
    assert score.index == others[int(logits[2, others].argmax())]
    assert score.confidence == pytest.approx(3 / 5 * softmax(logits[2:3, others]).max(), rel=1e-9)
    assert result_of(logits, "star").predicted == pytest.approx((3 * 5 + 3) / (4 * 5))


def test_where_no_input_has_finite_outputs_the_result_still_comes_and_says_so() -> None:
    result = result_of(np.full((3, 5), np.nan, np.float32), "tree")
    assert (result.scores, result.predicted) == ((None, None, None), 0.0)
