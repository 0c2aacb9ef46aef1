"""Contexts and outcomes for tests of split policies."""

from splitplace.messages.task import TaskFinished
from splitplace.policies.splitting import Arm, SplitContext

LAYER = Arm("layer", "layer", 0.9, 100.0, "", foreseen_ms=100.0, wait_ms=0.0, work_ms=80.0)
SEMANTIC = Arm("semantic", "semantic", 0.8, 40.0, "", foreseen_ms=40.0, wait_ms=0.0, work_ms=50.0)


def context(
    *arms: Arm,
    task: str = "c.t",
    application: str = "toy",
    deadline_ms: float = 1000.0,
    slack_ms: float | None = None,
    batch: int = 4,
    load_ms: float = 0.0,
    attempt: int = 1,
    grace_ms: float | None = None,
) -> SplitContext:
    """A decision between a layer and a semantic split, unless other arms are given."""
    return SplitContext(
        task,
        attempt,
        application,
        batch,
        deadline_ms,
        deadline_ms if slack_ms is None else slack_ms,
        arms or (LAYER, SEMANTIC),
        load_ms,
        grace_ms=grace_ms,
    )


def outcome(
    asked: SplitContext,
    variant: str | None,
    response_ms: float,
    *,
    status: str = "answered",
    accuracy: float | None = None,
) -> TaskFinished:
    """How a task ended; its accuracy is the variant's where nothing else is said."""
    usual = next((arm.accuracy for arm in asked.arms if arm.variant == variant), None)
    return TaskFinished.model_validate(
        {
            "task": asked.task,
            "attempt": asked.attempt,
            "application": asked.application,
            "batch": asked.batch,
            "status": status,
            "reason": "",
            "variant": variant,
            "deadline_ms": asked.deadline_ms,
            "response_ms": response_ms,
            "predicted_ms": None,
            "on_time": status == "answered" and response_ms <= asked.deadline_ms,
            "accuracy": accuracy,
            "variant_accuracy": usual,
        }
    )
