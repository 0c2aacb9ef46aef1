"""How results depend on load (Figures 9 and 11) and on the weights of the objective (Figures 10 and 12)."""

from splitplace.experiments.catalogue.policies import (
    DEFAULT,
    OURS,
    SPLITPLACE,
    SWEEP,
    SWEEP_SHORT,
    SWEPT,
    UNTRAINED,
)
from splitplace.experiments.metrics import ENERGY, ENERGY_ABOVE_IDLE, MERIT, RESPONSE, VIOLATIONS
from splitplace.experiments.plan import (
    Case,
    Cell,
    Claim,
    Experiment,
    Lines,
    Printed,
    changes,
    extreme,
    steady,
)

RATES = (2, 6, 30, 50)
"""Tasks per interval: both ends of the paper's horizontal axis, the usual load, and where violations rise."""

_REWARD_FREE = ("layer+gobi",)
_REWARD_AWARE = ("mab+daso", "mab+gobi", "gillis+gobi")
FIG9 = Experiment(
    name="fig9",
    title="Load: 2 to 50 tasks per interval (Figures 9 and 11)",
    question="How do policies bear more tasks than the cluster can do?",
    figures=("Figure 9", "Figure 11"),
    policies=SWEEP,
    more=(UNTRAINED, DEFAULT),
    scenario={"intervals": 40},
    cases=tuple(Case(f"rate {rate}", {"rate": rate}, float(rate)) for rate in RATES),
    metrics=(*MERIT, ENERGY, "share.layer", "share.semantic"),
    plots=(
        Lines(
            "rate",
            (*MERIT, ENERGY, ENERGY_ABOVE_IDLE),
            "Figure 9: figures of merit against load",
            "tasks per interval",
            logarithmic=True,
        ),
        Lines(
            "layer",
            (
                "by_application.mnist.share.layer",
                "by_application.fashionmnist.share.layer",
                "by_application.cifar100.share.layer",
            ),
            "Figure 11: share of layer splits by application",
            "tasks per interval",
            logarithmic=True,
        ),
    ),
    short=SWEEP_SHORT,
    claims=(
        changes(
            "accuracy drops with load for policies that look at rewards",
            _REWARD_AWARE,
            "accuracy",
            ("rate 6", "rate 50"),
            rises=False,
        ),
        steady(
            "accuracy stays (within a point) for policies that do not look at rewards",
            _REWARD_FREE,
            "accuracy",
            ("rate 6", "rate 50"),
            1.0,
        ),
        changes("response rises with load for all", SWEPT, RESPONSE, ("rate 6", "rate 50"), rises=True),
        changes(
            "violations rise sharply for all up to 30 tasks per interval",
            SWEPT,
            VIOLATIONS,
            ("rate 6", "rate 30"),
            rises=True,
        ),
        changes(
            "the bandit splits semantically more often under load",
            (SPLITPLACE,),
            "share.semantic",
            ("rate 6", "rate 50"),
            rises=True,
        ),
        *(
            extreme(
                f"MAB+DASO has the highest reward of the paper's models at {rate} tasks per interval",
                Cell(SPLITPLACE, "reward", f"rate {rate}"),
                SWEPT,
                highest=True,
            )
            for rate in RATES
        ),
        *(
            Claim(
                f"{who} earns at least 3 points more than either MAB+DASO at {rate} tasks per interval",
                tuple(
                    (Cell(row, "reward", f"rate {rate}"), Cell(rival, "reward", f"rate {rate}"))
                    for rival in (SPLITPLACE, UNTRAINED.name)
                ),
                low=3,
                source="aim",
            )
            for row, who in (
                (OURS, "our own policy, with the paper's arms,"),
                (DEFAULT.name, "the product as it ships, with every arm,"),
            )
            for rate in (6, 30)
        ),
    ),
    printed={
        Cell(SPLITPLACE, VIOLATIONS, "rate 6"): Printed(8),
        Cell(SPLITPLACE, VIOLATIONS, "rate 50"): Printed(35.1),
    },
    references=(DEFAULT.name, OURS),
)

ALPHAS = (0.0, 0.5, 1.0)
"""Weight of energy in equation 10; the weight of the response is 1 - alpha."""

_ABLATIONS = ("semantic+gobi", "layer+gobi", "mab+gobi", "mab+daso")
_BOTH_ENDS = ("alpha 0", "alpha 1")

FIG10 = Experiment(
    name="fig10",
    title="Energy against response: alpha from 0 to 1 (Figures 10 and 12)",
    question="What happens when the placement is asked to save energy rather than time?",
    figures=("Figure 10", "Figure 12"),
    policies=_ABLATIONS,
    cases=tuple(Case(f"alpha {alpha:g}", {"alpha": alpha}, alpha) for alpha in ALPHAS),
    metrics=(
        *MERIT,
        ENERGY,
        ENERGY_ABOVE_IDLE,
        "share.layer",
    ),
    plots=(
        Lines(
            "alpha",
            (*MERIT, ENERGY, ENERGY_ABOVE_IDLE),
            "Figure 10: figures of merit against the weight of energy",
            "alpha",
        ),
        Lines("layer", ("share.layer",), "Figure 12: share of layer splits", "alpha"),
    ),
    claims=(
        changes("energy declines as alpha rises, for all", _ABLATIONS, ENERGY, _BOTH_ENDS, rises=False),
        changes("response rises with alpha, for all", _ABLATIONS, RESPONSE, _BOTH_ENDS, rises=True),
        changes("violations rise with alpha, for all", _ABLATIONS, VIOLATIONS, _BOTH_ENDS, rises=True),
        changes(
            "accuracy of the bandit declines as alpha rises",
            ("mab+daso", "mab+gobi"),
            "accuracy",
            _BOTH_ENDS,
            rises=False,
        ),
        extreme(
            "MAB+DASO has the highest reward of the four at alpha .5",
            Cell(SPLITPLACE, "reward", "alpha 0.5"),
            _ABLATIONS,
            highest=True,
        ),
    ),
)
