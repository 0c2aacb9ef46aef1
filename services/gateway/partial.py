"""Partial answers: when some branches are enough, and when a new attempt would come too late. Pure."""

from collections.abc import Collection

from splitplace.messages.application import INPUT, Stage, Variant
from splitplace.messages.task import TaskDecided, TaskPlaced, TaskResult

NOT_FINITE = "the network gave NaN or infinity instead of an answer; another try would give the same"


def has_branches(variant: Variant) -> bool:
    """Whether some classes can be answered without the others."""
    return len(variant.sinks) > 1


def surviving_coverage(variant: Variant, placed: TaskPlaced, lost: Collection[str]) -> float:
    """Share of the classes whose branch does not need a lost node anywhere between input and output.

    Mean over micro-batches, which may go through different replicas; 0 if nothing is left of one of them.

    Args:
        variant: the out-tree of stages.
        placed: where its stages are; a stage without a node counts as lost.
        lost: nodes that will send nothing more.
    """
    covered = []
    for nodes in placed.paths():
        alive: set[str] = {INPUT}
        for stage in variant.stages:  # sources stand before their readers
            if stage.source in alive and stage.name in nodes and nodes[stage.name] not in lost:
                alive.add(stage.name)
        covered.append(sum(_weight(sink) for sink in variant.sinks if sink.name in alive))
    classes = sum(_weight(sink) for sink in variant.sinks)
    return sum(covered) / len(covered) / classes if min(covered) else 0.0


def _weight(sink: Stage) -> int:
    """Return the classes of a last stage; 1 where an answer is not made of classes."""
    return len(sink.classes) or 1


def comes_too_late(decided: TaskDecided | None, slack_ms: float) -> bool:
    """Whether every variant is predicted to take longer than the slack.

    Without any prediction a new attempt gets its chance.
    """
    known = decided.alternatives if decided is not None else ()
    predicted_ms = [arm.predicted_ms for arm in known if arm.predicted_ms is not None]
    return bool(predicted_ms) and min(predicted_ms) > slack_ms


def is_better(result: TaskResult, known: TaskResult | None, least_coverage: float) -> bool:
    """Whether a partial result should replace the one that is kept."""
    best = 0.0 if known is None else known.predicted
    return result.coverage >= least_coverage and result.predicted > best


def reason(result: TaskResult, trouble: str, decision: str) -> str:
    """Write the reason of a partial answer."""
    why = trouble or "a branch did not answer in time"
    return f"partial, {result.predicted:.0%} of the classes: {why}; {decision}"
