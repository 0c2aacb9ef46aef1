"""Experiments beyond the paper: changing speeds, failing nodes, more arms, and when decisions are taken."""

from splitplace.experiments.catalogue.policies import EVERY_ARM, OURS, SPLITPLACE
from splitplace.experiments.metrics import MERIT
from splitplace.experiments.plan import Case, Cell, Claim, Courses, Dots, Experiment, Lines, changes

_POLICIES = (SPLITPLACE, "linucb+earliest-finish", "rule+earliest-finish", OURS)

DRIFT = Experiment(
    name="drift",
    title="Speeds change in the middle",
    question="Which policies notice when every node becomes slower at half time?",
    policies=_POLICIES,
    cases=(Case("steady"), Case("half speed from the middle", {"drift": {"at_interval": 50, "factor": 0.5}})),
    metrics=(*MERIT, "share.layer"),
    plots=(
        Dots("main", MERIT, "With and without the change"),
        Courses(
            "course",
            "reward_by_tenth",
            "Reward (of 100) of the tasks that arrived in each tenth of the run",
            "tenth",
        ),
    ),
    references=(OURS,),
    claims=(
        Claim(
            "our own policy earns more than MAB+DASO when speeds change",
            (
                (
                    Cell(OURS, "reward", "half speed from the middle"),
                    Cell(SPLITPLACE, "reward", "half speed from the middle"),
                ),
            ),
            low=0,
            source="aim",
        ),
    ),
)

_HOURS = (1, 4)

FAILURES = Experiment(
    name="failures",
    title="Nodes that fail",
    question="What do failures cost, with repairs of ten minutes?",
    policies=_POLICIES,
    scenario={"rules": "product"},
    cases=(
        *(
            Case(
                f"mean time between failures {hours} h",
                {"failures": {"mean_intervals_between": 12.0 * hours, "mean_intervals_to_repair": 2.0}},
                hours,
            )
            for hours in _HOURS
        ),
        Case("no failures"),
    ),
    metrics=(*MERIT, "tasks.overdue_unfinished"),
    plots=(
        Lines(
            "failures",
            MERIT,
            "Figures of merit against the mean time between failures of a node",
            "hours",
            logarithmic=True,
        ),
    ),
    references=(OURS,),
    claims=(
        Claim(
            "our own policy earns more than MAB+DASO when every node fails once an hour",
            (
                (
                    Cell(OURS, "reward", "mean time between failures 1 h"),
                    Cell(SPLITPLACE, "reward", "mean time between failures 1 h"),
                ),
            ),
            low=0,
            source="aim",
        ),
    ),
)

ARMS = Experiment(
    name="arms",
    title="Two ways to split, or all",
    question="What is it worth to choose among four ways instead of the paper's two?",
    policies=_POLICIES,
    cases=(
        Case("layer, semantic", {"arms": ("layer", "semantic")}),
        Case("whole and compressed too", {"arms": EVERY_ARM}),
    ),
    metrics=(*MERIT, "share.whole", "share.layer", "share.semantic", "share.compressed"),
    plots=(Dots("main", MERIT, "With two arms and with four"),),
    references=(OURS,),
)

_BOTH_MODES = (SPLITPLACE, OURS)

INTERVAL = Experiment(
    name="interval",
    title="Deciding at once, or at interval starts",
    question="What does it cost to decide, place and move only every 300 s, as the paper does?",
    policies=_BOTH_MODES,
    cases=(
        Case("at once"),
        Case("at interval starts", {"mode": "interval"}),
        Case("at interval starts, nothing moves", {"mode": "interval", "rearrange": False}),
    ),
    metrics=(*MERIT, "wait_intervals", "decision_ms.p99", "migrations"),
    plots=(Dots("main", (*MERIT, "wait_intervals", "migrations"), "At once, and at interval starts"),),
    references=(OURS,),
    claims=(
        changes(
            "tasks wait longer where decisions are taken at interval starts",
            _BOTH_MODES,
            "wait_intervals",
            ("at once", "at interval starts"),
            rises=True,
        ),
    ),
)
