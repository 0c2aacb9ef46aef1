"""From a finished task to what its sender and the learning services are told. Pure."""

from splitplace.messages.application import Application
from splitplace.messages.task import Answer, Prediction, TaskFinished, TaskResult
from splitplace.services.gateway.core import Finish, unique
from splitplace.services.gateway.journal import Entry


def accuracy(result: TaskResult | None, labels: tuple[int, ...] | None) -> float | None:
    """Share of right answers where the sensor sent the truth."""
    if result is None or not labels:
        return None
    return sum(score.index == label for score, label in zip(result.scores, labels, strict=True)) / len(labels)


def answer(finish: Finish, entry: Entry, application: Application | None) -> Answer:
    """The terminal answer of an accepted task."""
    labels = application.labels if application else ()
    task, result = finish.task, finish.result
    scores = result.scores if result else ()
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
        nodes=_nodes(finish),
        deadline_ms=task.deadline_ms,
        response_ms=round(max(0.0, finish.response_ms), 3),
        on_time=_on_time(finish),
        attempt=task.attempt,
        partial=result is not None and result.coverage < 1,
        coverage=result.coverage if result else None,
    )


def finished(finish: Finish, entry: Entry, application: Application | None) -> TaskFinished:
    """The outcome that policies learn from."""
    task, result = finish.task, finish.result
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
        nodes=_nodes(finish),
        deadline_ms=task.deadline_ms,
        response_ms=max(0.0, finish.response_ms),
        predicted_ms=task.decided.predicted_ms if task.decided else None,
        on_time=_on_time(finish),
        accuracy=accuracy(result, entry.labels),
        variant_accuracy=known[variant] * result.coverage if variant in known and result else None,
        coverage=result.coverage if result else None,
        stages=result.stages if result else (),
        moved_bytes=result.moved_bytes if result else 0,
    )


def _variant(finish: Finish) -> str | None:
    if finish.result is not None:
        return finish.result.variant
    return finish.task.decided.variant if finish.task.decided else None


def _nodes(finish: Finish) -> tuple[str, ...]:
    """Who took part: of a partial result, those from which something came."""
    if finish.result is not None and finish.result.coverage < 1:
        return unique(report.node for report in finish.result.stages)
    return unique(stage.node for stage in finish.task.placed.stages) if finish.task.placed else ()


def _on_time(finish: Finish) -> bool:
    return finish.status == "answered" and finish.response_ms <= finish.task.deadline_ms
