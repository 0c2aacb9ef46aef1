"""The figures of merit of the paper's section 6.4, shared by the live system and the simulator.

Equations 14 and 15 are printed with their inequality reversed (`sla >= r` counted as a violation). Here, as
in the text and in equations 3 and 4: a task is on time where its response time does not exceed its deadline.

Every finished task counts, also one without a result (refused, expired, failed): it is not on time and has
accuracy 0. A mean over nothing is None, not a number that looks like a measurement.
"""

from collections.abc import Collection, Iterable, Sequence
from statistics import fmean

import numpy as np

from splitplace.messages.task import TaskFinished


def is_on_time(response_ms: float, deadline_ms: float) -> bool:
    """`1(r <= sla)` of equations 3, 4, 14 and 15; both are durations from the task's arrival."""
    return response_ms <= deadline_ms


def reward(on_time: bool, accuracy: float) -> float:  # noqa: FBT001 - the two terms of the equation, in order
    """Return one task's term in equation 15, in [0, 1]: `(1(r <= sla) + p) / 2`.

    Args:
        on_time: whether the answer came before the deadline; False without an answer.
        accuracy: share of right labels, in [0, 1]: of this task where the truth is known, else the
            variant's accuracy on its test set; 0 without an answer.
    """
    return (on_time + accuracy) / 2


def accuracy_of(outcome: TaskFinished) -> float:
    """Return `p_i` of equations 3, 4, 13 and 15: measured if the sensor sent the truth, else the variant's.

    Without an answer it is 0.
    """
    if outcome.status != "answered":
        return 0.0
    known = outcome.accuracy if outcome.accuracy is not None else outcome.variant_accuracy
    return known if known is not None else 0.0


def reward_of(outcome: TaskFinished) -> float:
    """Return a finished task's term in equation 15, in [0, 1]."""
    return reward(outcome.status == "answered" and outcome.on_time, accuracy_of(outcome))


def mean_reward(tasks: Collection[tuple[bool, float]]) -> float | None:
    """Equation 15: mean of `reward` over finished tasks, each given as (on time, accuracy)."""
    return mean([reward(on_time, accuracy) for on_time, accuracy in tasks])


def violation_rate(on_time: Collection[bool]) -> float | None:
    """Equation 14: share of finished tasks that were not answered on time."""
    return mean([not in_time for in_time in on_time])


def mean(values: Collection[float]) -> float | None:
    """Return the mean, None without values: equation 13 over accuracies, ART over response times."""
    return fmean(values) if values else None


def jain_fairness(values: Iterable[float]) -> float | None:
    """Return Jain's index `(sum x)^2 / (n * sum x^2)` of non-negative shares: 1/n (one has all) to 1 (equal).

    If all are 0, it is 1.
    """
    shares = list(values)
    if not shares:
        return None
    largest = max(shares)
    if largest <= 0:
        return 1.0
    scaled = [share / largest for share in shares]  # squares of tiny or huge shares leave the range of floats
    return sum(scaled) ** 2 / (len(scaled) * sum(share * share for share in scaled))


def quantile(values: Sequence[float], q: float) -> float | None:
    """Return the q-quantile (q in [0, 1]), interpolated linearly between neighbours. None without values.

    Raises:
        ValueError: q lies outside [0, 1].
    """
    if not 0 <= q <= 1:
        raise ValueError(f"quantile {q} is not in [0, 1]")
    return float(np.quantile(values, q)) if len(values) else None
