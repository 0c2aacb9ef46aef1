"""Whether a job gets all cores, or shares them with others. Pure."""

from splitplace.edge_node.gains import Gains
from splitplace.policies import cost


def all_cores_pay(waiting: int, gains: Gains) -> bool:
    """Whether jobs should run one after the other on all cores, rather than several at once in a thread each.

    Jobs one by one are each done sooner; several at once get more done in the end, because threads that share
    a run wait for each other. The lower mean time to the end of a job wins, as if no further jobs came.

    Args:
        waiting: Jobs that could run now, at least 1, taken as equal.
        gains: What the threads gain on such jobs.
    """
    if gains.threads == 1 or gains.alone <= 1:
        return False
    rounds, rest = divmod(waiting, gains.threads)
    one_by_one = (waiting + 1) / 2 / gains.alone
    ends_at_once = gains.threads * rounds * (rounds + 1) / 2 + rest * (rounds + 1)
    at_once = ends_at_once / waiting * gains.threads / gains.together
    return one_by_one <= at_once


def together_gain(jobs: int, gains: Gains) -> float:
    """Return how many times as fast as one by one on all cores a node works off equal jobs."""
    together = gains.together / max(1.0, gains.alone)
    return cost.together_gain(max(1, jobs), float(gains.threads), together)
