"""How the tasks of a demo are shared among its acts, and how fast they come. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from splitplace.commands.demo.plan import largest_network
from splitplace.commands.demo.workload import TightDeadline, largest_batch, tight_deadline
from splitplace.messages.application import Application
from splitplace.messages.cluster import NodeState
from splitplace.policies.splitting.arms import allows, parse_arms

TASKS_PER_SECOND = 2.5
"""Rate of all sensors together. Two cores can answer most tasks, with deadlines as mixed as the sensors'."""

LOOSEST = 25.0
"""Longest deadline as a multiple of the tight one, where nothing else is needed."""

REFUSED_FASTER = 4.0
"""How much faster tasks come that are all refused: nothing is computed."""

_BUSY = 0.6
"""Share of the time in which the tasks of the largest network would keep the nodes busy one by one."""

_ROOM_FOR_CHAINS = 8.0
"""Longest deadline as a multiple of one that a chain can just meet."""

_SPLIT_SHARE = 0.45
_KILLED_SHARE = 0.2
_SMALL_BATCH = 4
_SMALL_FACTOR = 3.0


@dataclass(frozen=True, slots=True)
class Shares:
    """Number of tasks in each act."""

    split: int
    """Tasks of the largest network; sent without splitting in the first act, and with it in the second."""
    killed: int
    """Tasks of the largest network while a node is killed."""
    small: tuple[int, ...]
    """Tasks of each other network, in the order of `Cast.small`."""


@dataclass(frozen=True, slots=True)
class Cast:
    """The networks of a demo."""

    large: Application
    small: tuple[Application, ...]


def cast(applications: Sequence[Application]) -> Cast:
    """Return the largest network and the others. Raises PlanError without any."""
    large = largest_network(applications)
    return Cast(large, tuple(each for each in applications if each is not large))


def shares(tasks: int, small: int) -> Shares:
    """Return how many tasks each act gets. All acts get some, if there are enough.

    Args:
        tasks: Tasks of the demo, without the repetition of the first act.
        small: Number of small networks.
    """
    killed = max(min(1, tasks - 1), round(tasks * _KILLED_SHARE))
    others = tasks - killed
    split = others if not small else max(1, min(others, round(tasks * _SPLIT_SHARE)))
    rest = others - split
    return Shares(split, killed, tuple(rest // small + (index < rest % small) for index in range(small)))


def allowed(application: Application, arms: str) -> Application:
    """Return the application with the variants that a setting allows. Raises ValueError for none."""
    chosen = parse_arms(arms)
    if chosen is None:
        return application
    variants = tuple(each for each in application.variants if allows(chosen, each.name, each.kind))
    if not variants:
        raise ValueError(f"{application.name} has no variant among {arms}")
    return application.model_copy(update={"variants": variants})


def rate(deadline: TightDeadline | None, batch_max: int) -> float:
    """Return tasks a second of the largest network, so that most of them can be answered."""
    if deadline is None:
        return TASKS_PER_SECOND
    usual_ms = deadline.ms + deadline.ms_per_image * sqrt(batch_max)
    return min(TASKS_PER_SECOND, 1000.0 * _BUSY / usual_ms)


def loosest(application: Application, deadline: TightDeadline | None, nodes: Sequence[NodeState]) -> float:
    """Return the longest deadline as a multiple of the tight one: long enough for a chain, too.

    Args:
        application: The network, with the variants that are allowed.
        deadline: Its tight deadline.
        nodes: Nodes as they reported themselves.
    """
    chains = tuple(each for each in application.variants if each.kind == "layer")
    if deadline is None or not chains:
        return LOOSEST
    chain = tight_deadline(application.model_copy(update={"variants": chains}), nodes)
    if chain is None:
        return LOOSEST
    ratios = [
        (chain.ms + batch * chain.ms_per_image) / (deadline.ms + batch * deadline.ms_per_image)
        for batch in (1, large_batch(application))
    ]
    return max(LOOSEST, _ROOM_FOR_CHAINS * max(ratios))


def large_batch(application: Application) -> int:
    """Return the largest batch of the network that is split: one that its chain can compute, too."""
    chains = tuple(each for each in application.variants if each.kind == "layer")
    return largest_batch(application.model_copy(update={"variants": chains}) if chains else application)


def small_batch(largest: int) -> int:
    """Return the largest batch of a small network: so few pictures that sending costs more than computing."""
    return min(_SMALL_BATCH, largest)


def small_deadline(deadline: TightDeadline | None) -> TightDeadline | None:
    """Return a deadline that leaves room for every variant: small networks are not in a hurry here."""
    if deadline is None:
        return None
    return TightDeadline(_SMALL_FACTOR * deadline.ms, _SMALL_FACTOR * deadline.ms_per_image)
