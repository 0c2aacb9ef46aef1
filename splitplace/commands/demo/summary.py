"""Summarise a demo: pure functions of what the sensors and the observer saw.

The hit rate and the reward (equation 15) are means over all tasks that were *sent*: a task that was refused,
expired, failed or lost is a miss with reward 0. Accuracy is the share of right labels among the images that
were answered, in time or late, in full or in part.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from splitplace.messages.names import sensor_key
from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.policies.scoring import mean, mean_reward, quantile

DECISIONS = ("whole", "layer", "semantic")


class SensorTask(BaseModel):
    """One line of the sensor's report (`sensor.py` says what the fields mean)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    client: str
    task: str
    format: str
    batch: Annotated[int, Field(ge=1)]
    deadline_ms: float
    answers: Annotated[int, Field(ge=0)]
    status: Literal["answered", "expired", "failed", "refused", "invalid"] | None
    reason: str
    decision: str | None
    on_time: bool
    response_ms: float | None
    elapsed_ms: float | None
    published_s: float = 0.0
    """On the sensor's own clock."""
    partial: bool = False
    right: Annotated[int, Field(ge=0)]

    @property
    def key(self) -> str:
        """Both names of the task: its key in the services without the incarnation."""
        return f"{self.client}.{self.task}"

    @property
    def accuracy(self) -> float:
        """Share of right labels; 0 without a result."""
        return self.right / self.batch if self.status == "answered" else 0.0

    @property
    def counts_as_on_time(self) -> bool:
        """Whether there is a result, and in time."""
        return self.status == "answered" and self.on_time


Sent = Mapping[str, Sequence[SensorTask]]
"""Tasks by the application they were sent to."""


def summarise(
    sent: Sent,
    accepted: frozenset[str],
    finished: Mapping[str, TaskFinished],
    decided: Mapping[str, TaskDecided],
) -> dict[str, Any]:
    """Return the part of the demo's summary about tasks.

    Args:
        sent: What the sensors report of their tasks.
        accepted: Keys of tasks whose acceptance was seen.
        finished: Terminal events by task key.
        decided: An example for each decision.

    Returns:
        A JSON-able dictionary; its keys are read by `.ci/check_summary.py`.
    """
    everything = [task for tasks in sent.values() for task in tasks]
    accepted = frozenset(map(sensor_key, accepted))
    finished = {sensor_key(key): event for key, event in finished.items()}
    return {
        **figures(everything, accepted, finished),
        "by_application": {
            application: figures(tasks, accepted, finished) for application, tasks in sorted(sent.items())
        },
        "reasons": {name: decided[name].reason for name in sorted(decided)},
        "formats": dict(Counter(task.format for task in everything)),
    }


def figures(
    tasks: Sequence[SensorTask], accepted: frozenset[str], finished: Mapping[str, TaskFinished]
) -> dict[str, Any]:
    """Return the figures of some tasks; keys of accepted and finished ones are without incarnation."""
    results = [task for task in tasks if task.status == "answered"]
    inputs = sum(task.batch for task in results)
    states = Counter(task.status for task in tasks)
    decisions = Counter(
        event.variant for task in tasks if (event := finished.get(task.key)) is not None and event.variant
    )
    return {
        "tasks": {
            "sent": len(tasks),
            "accepted": sum(task.key in accepted for task in tasks),
            "answered": states["answered"],
            "late": sum(not task.on_time for task in results),
            "partial": sum(task.partial for task in results),
            "refused": states["refused"],
            "invalid": states["invalid"],
            "expired": states["expired"],
            "failed": states["failed"],
            "lost": sum(task.key in accepted and task.answers == 0 for task in tasks),
            "unanswered": sum(task.answers == 0 for task in tasks),
            "answered_twice": sum(task.answers > 1 for task in tasks),
        },
        "inputs": inputs,
        "accuracy": sum(task.right for task in results) / inputs if inputs else None,
        "deadline_hit_rate": mean([task.counts_as_on_time for task in tasks]),
        "reward": mean_reward([(task.counts_as_on_time, task.accuracy) for task in tasks]),
        "response_ms": _quantiles([task.response_ms for task in results]),
        "response_seen_by_sensor_ms": _quantiles([task.elapsed_ms for task in results]),
        "decisions": {
            name: decisions[name] for name in (*DECISIONS, *sorted(set(decisions) - set(DECISIONS)))
        },
    }


def _quantiles(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    return {"p50": quantile(known, 0.5), "p95": quantile(known, 0.95)}


def faults(summary: Mapping[str, Any]) -> list[str]:
    """Return the promises that the system broke."""
    tasks = summary["tasks"]
    promises = {
        "lost": "accepted tasks without an answer",
        "unanswered": "tasks without an answer",
        "answered_twice": "tasks with more than one answer",
    }
    return [f"{tasks[key]} {text}" for key, text in promises.items() if tasks[key]]
