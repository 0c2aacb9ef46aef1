"""The result aggregator of the simulated cluster: what has come back of a task, as a `TaskResult`."""

from collections.abc import Sequence

from splitplace.messages.task import ClassScore, StageReport, TaskResult
from splitplace.simulator.execution import Execution, StageRun

_SCORE = ClassScore(index=0, confidence=1.0)
"""Stands for every output: the simulator moves bytes, not pictures."""


def result_of(execution: Execution) -> TaskResult | None:
    """Merge what has come back of a task, as the live aggregator does.

    Returns:
        The full result where every sink has returned everything, else a partial one; None where some input
        was not answered by any branch.
    """
    sizes = execution.job.micro_batches
    sinks = {run: run.arrived for run in execution.runs.values() if not run.children}
    came = {number for run, arrived in sinks.items() for number, _ in run.inputs[:arrived]}
    if len(came) < len(sizes):
        return None
    job = execution.job
    runs = _on_path_to([run for run, arrived in sinks.items() if arrived])
    # Not validated: nothing here comes from outside, and validating a thousand scores takes long.
    return TaskResult.model_construct(
        task=execution.task,
        attempt=execution.attempt,
        application=job.application.name,
        variant=job.variant.name,
        scores=(_SCORE,) * job.batch,
        stages=tuple([_report(run) for run in execution.runs.values() if run in runs]),
        micro_batches=len(sizes),
        moved_bytes=round(execution.moved_bytes),
        coverage=_coverage(sinks, sizes),
    )


def _coverage(sinks: dict[StageRun, int], sizes: Sequence[int]) -> float:
    """Share of the classes that is answered, mean over inputs."""
    if all(arrived == len(run.numbers) for run, arrived in sinks.items()):
        return 1.0
    classes = sum({run.stage.name: len(run.stage.classes) for run in sinks}.values())
    covered = sum(
        len(run.stage.classes) * sum([sizes[number] for number, _ in run.inputs[:arrived]])
        for run, arrived in sinks.items()
    )
    return covered / (classes * sum(sizes))


def _on_path_to(sinks: Sequence[StageRun]) -> set[StageRun]:
    runs: set[StageRun] = set()
    left = list(sinks)
    while left:
        run = left.pop()
        if run not in runs:
            runs.add(run)
            left += run.sources
    return runs


def _report(run: StageRun) -> StageReport:
    """Cost of a stage so far.

    A live node does one call at a time, so its computing time is that of its processor. Where a processor is
    shared, the time that a call waits for others counts as waiting here too.
    """
    work = sum([run.execution.work(run, number) for number in range(run.computed)])
    compute_ms = min(run.compute_ms, work / run.machine.processor.score)
    return StageReport(
        stage=run.stage.name,
        node=run.machine.name,
        queue_ms=max(0.0, run.computed_ms - run.received_ms - compute_ms),
        compute_ms=compute_ms,
    )
