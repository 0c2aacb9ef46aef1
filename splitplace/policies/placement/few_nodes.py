"""Put stages on a few nodes by asking each of them. Pure.

A `Board` bounds all nodes in some dozens of array operations, which pays where there are many. A home has two
or three: there, the exact times of each are known before the arrays are made. Both choose the same nodes.
"""

from collections.abc import Sequence

from splitplace.messages.application import Stage
from splitplace.policies.prediction import Offer, StageSchedule

FEW_NODES = 4
"""Nodes up to which asking each is quicker (`python -m benchmarks.decisions`)."""


def put_where_first(schedule: StageSchedule, names: Sequence[str]) -> Stage | None:
    """Put every stage where it ends first; of equal ones, by the node's free time, then its name.

    Args:
        schedule: empty, and filled as far as it goes.
        names: the nodes that may be used.

    Returns:
        The first stage that no node has memory for, if any.
    """
    by_name = sorted(names)
    for stage in schedule.job.variant.stages:
        best: Offer | None = None
        best_key = (0.0, 0.0)
        for name in by_name:
            if schedule.fits(stage, name):
                offer = schedule.offer(stage, name)
                key = (offer.end_ms, schedule.free_ms(name))
                if best is None or key < best_key:
                    best, best_key = offer, key
        if best is None:
            return stage
        schedule.put(stage, best)
    return None


def put_all_on(schedule: StageSchedule, name: str) -> bool:
    """Put every stage on one node. Return whether its memory is enough; else some are put."""
    for stage in schedule.job.variant.stages:
        if not schedule.fits(stage, name):
            return False
        schedule.put(stage, schedule.offer(stage, name))
    return True
