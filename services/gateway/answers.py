"""From a finished task to what its sender and the learning services are told. Pure."""

from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_DEADLINE_MS
from splitplace.messages.task import Answer, Prediction, TaskFinished, TaskResult
from splitplace.services.gateway.instructions import Finish
from splitplace.services.gateway.journal import Damaged, Entry


def accuracy(result: TaskResult | None, labels: tuple[int, ...] | None) -> float | None:
    """Share of right answers, where the sensor sent the true labels."""
    if result is None or not labels:
        return None
    return sum(score.index == label for score, label in zip(result.scores, labels, strict=True)) / len(labels)


def answer(finish: Finish, entry: Entry, application: Application | None) -> Answer:
    """Build the terminal answer of an accepted task."""
    names = application.labels if application else ()
    result = finish.result
    scores = result.scores if result else ()
    return Answer(
        task=entry.task,
        client=entry.client,
        application=entry.application,
        status=finish.status,
        reason=finish.reason,
        predictions=tuple(
            Prediction(
                label=names[score.index] if score.index < len(names) else str(score.index),
                index=score.index,
                confidence=score.confidence,
            )
            for score in scores
        ),
        decision=finish.variant,
        nodes=finish.nodes,
        deadline_ms=finish.deadline_ms,
        response_ms=round(_duration_ms(finish.response_ms), 3),
        on_time=finish.on_time,
        attempt=finish.attempt,
        partial=result is not None and result.coverage < 1,
        coverage=result.coverage if result else None,
        warnings=entry.reply.warnings,
    )


def damaged(row: Damaged) -> Answer:
    """Build the answer of a task whose row in the journal cannot be read.

    Raises:
        ValidationError: not even its names can be.
    """
    return without_result(row, f"the gateway's record of it is damaged: {row.error}")


def without_result(task: Entry | Damaged, why: str) -> Answer:
    """Build an answer of a task from its names alone."""
    return Answer(
        task=task.task,
        client=task.client,
        application=None,
        status="failed",
        reason=f"the task is lost, send it again: {why}"[:1000],
        warnings=task.reply.warnings,
    )


def with_warning(answer: Answer, warning: str) -> Answer:
    """Add a warning to an answer."""
    return answer.model_copy(update={"warnings": (*answer.warnings, warning)})


def _duration_ms(measured_ms: float) -> float:
    """Bound a duration: where the wall clock took part in it, it may be anything."""
    return min(max(0.0, measured_ms), 2 * MAX_DEADLINE_MS)


def finished(
    finish: Finish, application: Application | None, labels: tuple[int, ...] | None = None
) -> TaskFinished:
    """Build the outcome that policies learn from.

    Args:
        finish: the end of the task.
        application: its catalogue entry, where it is known.
        labels: the true labels, where the sensor sent them.
    """
    result, variant = finish.result, finish.variant
    accuracies = {known.name: known.accuracy for known in application.variants} if application else {}
    return TaskFinished(
        task=finish.key,
        attempt=finish.attempt,
        application=finish.application,
        batch=finish.batch,
        status=finish.status,
        reason=finish.reason,
        variant=variant,
        nodes=finish.nodes,
        deadline_ms=finish.deadline_ms,
        response_ms=_duration_ms(finish.response_ms),
        predicted_ms=finish.decided.predicted_ms if finish.decided else None,
        on_time=finish.on_time,
        accuracy=accuracy(result, labels),
        variant_accuracy=accuracies[variant] * result.coverage if variant in accuracies and result else None,
        coverage=result.coverage if result else None,
        stages=result.stages if result else (),
        moved_bytes=result.moved_bytes if result else 0,
    )
