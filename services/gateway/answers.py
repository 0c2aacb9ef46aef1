"""From a finished task to what its sender and the learning services are told. Pure."""

from collections.abc import Iterator

from splitplace.messages.application import Application
from splitplace.messages.findings import AnyPrediction, Prediction, Scored
from splitplace.messages.limits import MAX_DEADLINE_MS
from splitplace.messages.task import Answer, ClassScore, ClassShare, TaskFinished, TaskResult
from splitplace.services.gateway.instructions import Finish
from splitplace.services.gateway.journal import Damaged, Entry
from splitplace.services.gateway.mapping import on_picture

UNKNOWN = "unknown"
"""Label of an input whose confidence is below what the application asks for."""
NOT_THERE = "the broker does not take answers on the response topic"
"""Warning of an answer that was sent to the answer topic instead."""
MAX_NAMED = 20
"""Inputs that a warning names; the others are counted."""


def accuracy(result: TaskResult | None, labels: tuple[int, ...] | None) -> float | None:
    """Share of right answers, where the sensor sent the true labels."""
    if result is None or not labels or not result.scores:
        return None
    pairs = zip(result.scores, labels, strict=True)
    return sum(score is not None and score.index == label for score, label in pairs) / len(labels)


def answer(finish: Finish, entry: Entry, application: Application | None) -> Answer:
    """Build the terminal answer of an accepted task."""
    result = finish.result
    return Answer(
        task=entry.task,
        client=entry.client,
        application=entry.application,
        status=finish.status,
        reason=finish.reason,
        predictions=tuple(_predictions(result, entry, application)) if result else (),
        decision=finish.variant,
        nodes=finish.nodes,
        deadline_ms=finish.deadline_ms,
        response_ms=round(_duration_ms(finish.response_ms), 3),
        on_time=finish.on_time,
        attempt=finish.attempt,
        partial=result is not None and result.predicted < 1,
        coverage=result.predicted if result else None,
        warnings=(*entry.reply.warnings, *_not_finite(result)),
    )


def _predictions(
    result: TaskResult, entry: Entry, application: Application | None
) -> Iterator[AnyPrediction | None]:
    """Yield the answer for each input, with the places that it names on the sensor's picture."""
    for number, found in enumerate(result.inputs):
        if isinstance(found, ClassScore):
            yield Prediction(
                label=_label(found, application),
                index=found.index,
                confidence=found.confidence,
                top=tuple(
                    Scored(label=_name(each, application), index=each.index, confidence=each.confidence)
                    for each in found.top
                ),
            )
        elif found is not None and number < len(entry.views):
            shape = application.input.shape if application is not None else entry.inputs.shape
            height, width = shape[-2:]
            yield on_picture(found, entry.views[number], (width, height))
        else:
            yield found


def _label(score: ClassScore, application: Application | None) -> str:
    """Return the name of a class; `unknown` where the application asks for more confidence."""
    if application is not None and score.confidence < application.unknown_below:
        return UNKNOWN
    return _name(score, application)


def _name(score: ClassShare, application: Application | None) -> str:
    """Return the name of a class; its number where the application does not know it."""
    if application is None or score.index >= len(application.labels):
        return str(score.index)
    return application.labels[score.index]


def _not_finite(result: TaskResult | None) -> tuple[str, ...]:
    """Write which inputs have no prediction, or not of all classes, because outputs were not finite."""
    if result is None or result.finite == 1:
        return ()
    without = [str(index) for index, found in enumerate(result.inputs) if found is None]
    if not without:
        return ("some branches gave NaN or infinity for some inputs; their classes are not predicted there",)
    more = f" and {len(without) - MAX_NAMED} more" if len(without) > MAX_NAMED else ""
    named = f"{', '.join(without[:MAX_NAMED])}{more}"
    return (f"no prediction for the inputs {named} (counted from 0): the network gave NaN or infinity",)


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
    finish: Finish,
    application: Application | None,
    labels: tuple[int, ...] | None = None,
    traceparent: str | None = None,
) -> TaskFinished:
    """Build the outcome that policies learn from.

    Args:
        finish: the end of the task.
        application: its catalogue entry, where it is known.
        labels: the true labels, where the sensor sent them.
        traceparent: the sensor's span, where it sent one.
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
        after_decision_ms=_after_decision_ms(finish),
        promised=finish.decided.promised if finish.decided else None,
        on_time=finish.on_time,
        accuracy=accuracy(result, labels),
        variant_accuracy=accuracies[variant] * result.predicted if variant in accuracies and result else None,
        coverage=result.predicted if result else None,
        stages=result.stages if result else (),
        moved_bytes=result.moved_bytes if result else 0,
        traceparent=traceparent,
    )


def _after_decision_ms(finish: Finish) -> float | None:
    """Return the time since the decision of the last attempt; None without one."""
    if finish.decided is None:
        return None
    decided_after_ms = finish.deadline_ms - finish.decided.slack_ms
    return _duration_ms(max(0.0, finish.response_ms - decided_after_ms))
