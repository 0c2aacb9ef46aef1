"""From a finished task to what its sender and the learning services are told. Pure."""

from messages.application import Application
from messages.task import Answer, Prediction, TaskFinished, TaskResult
from services.gateway.core import Finish, unique
from services.gateway.journal import Entry


def accuracy(result: TaskResult | None, labels: tuple[int, ...] | None) -> float | None:
    """Share of right answers where the sensor sent the truth."""
    if result is None or not labels:
        return None
    return sum(score.index == label for score, label in zip(result.scores, labels, strict=True)) / len(labels)


def answer(finish: Finish, entry: Entry, application: Application | None) -> Answer:
    """The terminal answer of an accepted task."""
    labels = application.labels if application else ()
    scores = finish.result.scores if finish.result else ()
    task = finish.task
    return Answer(
        task=entry.task,
        client=entry.client,
        application=entry.application,
        status=finish.status,
        reason=finish.reason,
        predictions=tuple(
            Prediction(
                label=labels[score.index] if score.index < len(labels) else str(score.index),
                index=score.index,
                confidence=score.confidence,
            )
            for score in scores
        ),
        decision=_variant(finish),
        nodes=unique(stage.node for stage in task.placed.stages) if task.placed else (),
        deadline_ms=task.deadline_ms,
        response_ms=round(max(0.0, finish.response_ms), 3),
        on_time=_on_time(finish),
        attempt=task.attempt,
    )


def finished(finish: Finish, entry: Entry, application: Application | None) -> TaskFinished:
    """The outcome that policies learn from."""
    task = finish.task
    variant = _variant(finish)
    known = {entry.name: entry.accuracy for entry in application.variants} if application else {}
    return TaskFinished(
        task=task.key,
        attempt=task.attempt,
        application=task.application,
        batch=task.batch,
        status=finish.status,
        reason=finish.reason,
        variant=variant,
        nodes=unique(stage.node for stage in task.placed.stages) if task.placed else (),
        deadline_ms=task.deadline_ms,
        response_ms=max(0.0, finish.response_ms),
        predicted_ms=task.decided.predicted_ms if task.decided else None,
        on_time=_on_time(finish),
        accuracy=accuracy(finish.result, entry.labels),
        variant_accuracy=known.get(variant) if variant and finish.result else None,
        stages=finish.result.stages if finish.result else (),
        moved_bytes=finish.result.moved_bytes if finish.result else 0,
    )


def _variant(finish: Finish) -> str | None:
    if finish.result is not None:
        return finish.result.variant
    return finish.task.decided.variant if finish.task.decided else None


def _on_time(finish: Finish) -> bool:
    return finish.status == "answered" and finish.response_ms <= finish.task.deadline_ms
