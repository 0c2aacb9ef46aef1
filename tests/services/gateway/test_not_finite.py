"""What a sensor hears when a network gives NaN: the reason, at once, and for the inputs concerned only."""

from splitplace.messages.findings import Prediction
from splitplace.messages.task import ClassScore, TaskResult
from splitplace.services.gateway import answers
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.instructions import Finish, Instruction
from splitplace.services.gateway.task import RetryRules
from tests.services.gateway.stimuli import decided, entry, placed, result, task
from tests.support.message_examples import application

SCORE = ClassScore(index=1, confidence=0.9)


def ended(scores: tuple[ClassScore | None, ...]) -> tuple[Finish, list[Instruction]]:
    """The end of a running task of two inputs whose result has these scores; what came before the end."""
    core = GatewayCore(RetryRules(), {"tiny": application(name="tiny")})
    core.accept(task(), 0.0)
    core.decided(decided(), 1.0)
    core.placed(placed(), 2.0)
    finite = sum(score is not None for score in scores) / len(scores)
    *before, finish = core.result(
        TaskResult.model_validate(dict(result()) | {"scores": scores, "finite": finite}), 10.0
    )
    assert isinstance(finish, Finish)
    return finish, before


def test_a_task_without_any_finite_output_fails_at_once_with_that_reason() -> None:
    finish, _ = ended((None, None))
    answer = answers.answer(finish, entry(), application())
    assert (finish.status, finish.attempt, finish.response_ms) == ("failed", 1, 10.0)
    assert "NaN" in answer.reason
    assert answer.predictions == ()


def test_an_input_without_finite_output_has_no_prediction_and_the_others_keep_theirs() -> None:
    finish, _ = ended((SCORE, None))
    answer = answers.answer(finish, entry(), application())
    assert answer.status == "answered"
    first, second = answer.predictions
    assert isinstance(first, Prediction)
    assert (first.index, first.confidence) == (1, 0.9)
    assert second is None
    assert (answer.partial, answer.coverage) == (True, 0.5)
    (warning,) = answer.warnings
    assert "inputs 1 " in warning
    assert "NaN" in warning


def test_the_missing_prediction_counts_as_wrong_and_the_outcome_is_not_one_in_full() -> None:
    finish, _ = ended((SCORE, None))
    outcome = answers.finished(finish, application(), labels=(1, 1))
    assert (outcome.accuracy, outcome.coverage, outcome.in_full) == (0.5, 0.5, False)


def test_many_inputs_without_a_prediction_are_counted_in_the_warning() -> None:
    scores = (SCORE, *[None] * 400)
    told = TaskResult.model_validate(dict(result()) | {"scores": scores, "finite": 1 / 401})
    (warning,) = answers._not_finite(told)
    assert "and 380 more" in warning
