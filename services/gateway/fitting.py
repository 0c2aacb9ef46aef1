"""Whether a result can be that of its task, by the catalogue and the placement. Pure."""

from splitplace.messages.application import Application, Variant
from splitplace.messages.task import TaskResult
from splitplace.services.gateway import partial
from splitplace.services.gateway.task import Task


def misfit(result: TaskResult, task: Task, application: Application | None) -> str | None:
    """Return what a result contradicts; None if nothing.

    Args:
        result: of this task, of its present attempt or an earlier one.
        task: as the gateway's core knows it.
        application: the task's catalogue entry, where it is known.
    """
    if result.application != task.accepted.application:
        return f"it is of application {result.application}, the task of {task.accepted.application}"
    if result.attempt == task.attempt and task.placed is not None:
        if result.variant != task.placed.variant:
            return f"it is of variant {result.variant}, {task.placed.variant} was placed"
        second = task.second.stages if task.second is not None else ()
        placed = {(stage.stage, stage.node) for stage in (*task.placed.stages, *second)}
        strange = [report for report in result.stages if (report.stage, report.node) not in placed]
        if strange:
            return f"stage {strange[0].stage} was not placed on {strange[0].node}"
    if application is None:
        return None
    kind = application.answers.kind
    if (kind == "classification") != bool(result.scores) or any(
        found is not None and found.kind != kind for found in result.findings
    ):
        return f"it is no result of {kind}"
    variant = next((known for known in application.variants if known.name == result.variant), None)
    return f"there is no variant {result.variant}" if variant is None else _misfit(result, variant)


def _misfit(result: TaskResult, variant: Variant) -> str | None:
    classes = {index for sink in variant.sinks for index in sink.classes}
    strange = [score.index for score in result.scores if score is not None and score.index not in classes]
    if strange:
        return f"class {strange[0]} is none of the {len(classes)} classes of {variant.name}"
    if result.coverage < 1 and not partial.has_branches(variant):
        return f"it is partial, but {variant.name} has no branches"
    return None
