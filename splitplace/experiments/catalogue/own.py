"""The profile `store`: the shipped models, with their measured costs, on Raspberry Pis."""

from splitplace.experiments.catalogue.policies import EVERY_ARM, OURS, OURS_WITH_DASO, SPLITPLACE
from splitplace.experiments.metrics import MERIT
from splitplace.experiments.plan import (
    ApplicationDots,
    Case,
    Cell,
    Claim,
    Experiment,
    Lines,
    PolicyRow,
    extreme,
)

RATES = (6, 12, 24)
"""Tasks per interval: a light load, a full load, and more than the hosts can process."""

ALL_ARMS = (*EVERY_ARM, "int8", "early-exit")
"""Some applications of the store also have an eight-bit network, or exits after some of their layers."""


def with_every_arm(policy: str) -> PolicyRow:
    """Return the row of a policy that may choose every arm of the store."""
    return PolicyRow(f"{policy} (every arm)", policy, ALL_ARMS)


_DEFAULT = with_every_arm(OURS)
_POLICIES = ("whole+earliest-finish", "semantic+earliest-finish", "mc+gobi", SPLITPLACE, OURS)
_MORE = (
    with_every_arm(SPLITPLACE),
    with_every_arm("rule+earliest-finish"),
    _DEFAULT,
    with_every_arm(OURS_WITH_DASO),
)
"""There is no oracle here: with long queues, its look-ahead takes longer than all other runs together."""
_SHORT = ("rule+earliest-finish (every arm)", _DEFAULT.name)
_RIVALS = (*_POLICIES, *(row.name for row in _MORE))


def _case(rate: float) -> str:
    return f"rate {rate:g}"


STORE = Experiment(
    name="store",
    title="Our own models on Raspberry Pis",
    question=(
        "Which policy serves the applications of the model store best, on ten Raspberry Pi 4 that work as "
        "the nodes of the running system do?"
    ),
    policies=_POLICIES,
    more=_MORE,
    scenario={
        "profile": "store",
        "hosts": 10,
        "interval_s": 0.6,
        "intervals": 30,
        "training_intervals": 30,
        "rate": 12,
        "discipline": "deadline",
        "through_broker": True,
        "rules": "product",
    },
    cases=tuple(Case(_case(rate), {"rate": rate}, rate) for rate in RATES),
    metrics=(
        *MERIT,
        "response_intervals.p95",
        "tasks.refused",
        *(f"share.{kind}" for kind in ALL_ARMS),
    ),
    plots=(
        Lines("rate", MERIT, "Figures of merit against load", "tasks per interval", logarithmic=True),
        ApplicationDots("applications", MERIT, "By application, 12 tasks per interval", _case(12)),
    ),
    short=("whole+earliest-finish", "semantic+earliest-finish", SPLITPLACE, OURS, *_SHORT),
    claims=tuple(
        claim
        for rate in RATES
        for claim in (
            Claim(
                f"the product as it ships earns more than MAB+DASO at {rate} tasks per interval",
                ((Cell(_DEFAULT.name, "reward", _case(rate)), Cell(SPLITPLACE, "reward", _case(rate))),),
                low=0,
                source="aim",
            ),
            extreme(
                f"the product as it ships earns most of all at {rate} tasks per interval",
                Cell(_DEFAULT.name, "reward", _case(rate)),
                _RIVALS,
                highest=True,
                source="aim",
            ),
        )
    ),
    references=(_DEFAULT.name,),
)
