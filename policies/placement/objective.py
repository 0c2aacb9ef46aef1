"""What a placement is to bring: equation 10, and how it falls to single tasks.

    O^P = O^MAB - alpha * AEC - beta * ART

The paper means over the tasks E that leave in an interval. Read so that each term is a mean over E, the
objective is itself a mean over tasks, and each task has its own share:

    o_i = reward_i - alpha * AEC * e_i / mean(e) - beta * response_share_i

with `e_i` the computing time that the task took, over what it takes on a node of mean speed: how dear its
nodes were. So the mean of `o_i` over E is `O^P` exactly, and a placement that wastes energy or time is told
from one that does not although both left in the same interval. (With the computing time itself as `e_i` the
mean is the same, but large tasks would get a bad mark wherever they run.)
"""

from messages.task import TaskFinished
from policies.scoring import reward

ALPHA = 0.5
"""Weight of energy; beta = 1 - alpha weighs the response time (the paper's section 6.1)."""


def response_share(response_ms: float, deadline_ms: float) -> float:
    """A response time in [0, 1), whatever its unit: `r / (r + sla)`, 1/2 exactly on the deadline.

    The paper counts scheduling intervals; a live system has none, and one overdue task would outweigh all.
    """
    return response_ms / (response_ms + deadline_ms) if response_ms + deadline_ms > 0 else 0.0


def task_reward(finished: TaskFinished) -> float:
    """Equation 15 of one task; 0 without an answer."""
    if finished.status != "answered":
        return 0.0
    accuracy = finished.variant_accuracy if finished.accuracy is None else finished.accuracy
    return reward(finished.on_time, accuracy or 0.0)


def objective(mean_reward: float, energy: float, response: float, alpha: float = ALPHA) -> float:
    """Equation 10, all terms in [0, 1]."""
    return mean_reward - alpha * energy - (1 - alpha) * response
