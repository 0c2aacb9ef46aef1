"""The objective of placement: equation 10, and the share of each task.

    O^P = O^MAB - alpha * AEC - beta * ART

The paper averages over the tasks E that leave in an interval. If each term is a mean over E, the objective is
itself a mean over tasks, and each task has its own share:

    o_i = reward_i - alpha * AEC * e_i / mean(e) - beta * response_share_i

where `e_i` is the computing time of the task over that on a node of mean speed: the expense of its nodes. So
the mean of `o_i` over E is exactly `O^P`, and a wasteful placement differs from a good one even if both leave
in the same interval. (With the computing time itself as `e_i`, the mean is the same, but large tasks would
score badly wherever they run.)

A surrogate learns this with one difference, `charged`. A task on a crowded node also makes others wait, and
their loss is not in its own `o_i`: each task would crowd the fastest nodes for its own good. On a fairly
shared node, i delays j by as much as j delays i (both by the smaller work of the two). So the time that a
task waited for others is also the time that others waited for it, and it is charged once more.
"""

from dataclasses import dataclass

from splitplace.messages.task import TaskFinished
from splitplace.policies.scoring import reward_of

ALPHA = 0.5
"""Weight of energy; beta = 1 - alpha weighs the response time (the paper's section 6.1)."""


def response_share(response_ms: float, deadline_ms: float) -> float:
    """Return a response time in [0, 1), without a unit: `r / (r + sla)`, 1/2 exactly on the deadline.

    The paper counts scheduling intervals; a live system has none, and one overdue task would outweigh all.
    """
    return response_ms / (response_ms + deadline_ms) if response_ms + deadline_ms > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Charged:
    """The terms of `o_i` that are known when a task ends, with the waiting it caused to others."""

    reward: float
    response: float


def charged(finished: TaskFinished, micro_batches: int) -> Charged:
    """Return the terms of a task, with the waiting it caused to others counted as its own.

    Args:
        finished: the outcome of the task.
        micro_batches: its number of micro-batches; reports add up their waiting, which is at the same time.
    """
    waited_ms = sum(report.queue_ms for report in finished.stages) / micro_batches
    response_ms = finished.response_ms + waited_ms
    brought = reward_of(finished)
    if finished.on_time and response_ms > finished.deadline_ms:
        brought = reward_of(finished.model_copy(update={"on_time": False}))
    return Charged(brought, response_share(response_ms, finished.deadline_ms))


def objective(mean_reward: float, energy: float, response: float, alpha: float = ALPHA) -> float:
    """Return equation 10 for terms in [0, 1]."""
    return mean_reward - alpha * energy - (1 - alpha) * response
