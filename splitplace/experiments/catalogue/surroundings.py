"""Poorer hosts, single workloads, a cloud far away, and what placement is worth (Figures 13 to 19)."""

from splitplace.experiments.catalogue.policies import OURS, SPLITPLACE, SWEEP, SWEEP_SHORT, SWEPT
from splitplace.experiments.metrics import ENERGY, MERIT, RESPONSE, VIOLATIONS
from splitplace.experiments.plan import (
    ApplicationDots,
    Case,
    Cell,
    Claim,
    Dots,
    Experiment,
    Stacks,
    changes,
    extreme,
    steady,
)
from splitplace.simulator.scenario import CLOUD

_PARTS = (
    "response_parts_intervals.wait",
    "response_parts_intervals.transfer",
    "response_parts_intervals.compute",
)
NETWORK_CARDS = {"network_factor": 0.08}
"""Section 6.1 prints "10 MBps network interface cards", Table 3 bandwidths 12 times as high. Which one was
used is not known."""

_CONSTRAINTS = ("half the cores", "half the network", "half the memory")
_REWARD_FREE = ("layer+gobi",)

FIG13 = Experiment(
    name="fig13",
    title="Half the cores, network or memory (Figures 13 to 15)",
    question="Which policies bear poorer hosts?",
    figures=("Figure 13", "Figure 14", "Figure 15"),
    policies=SWEEP,
    scenario={"intervals": 60},
    cases=(
        Case("normal"),
        Case("half the cores", {"compute_factor": 0.5}),
        Case("half the network", {"network_factor": 0.5}),
        Case("half the memory", {"memory_factor": 0.5}),
        Case("a sixth of the memory", {"memory_factor": 1 / 6}),
        Case("a sixth of the memory, offered six times", {"memory_factor": 1 / 6, "overcommit": 6.0}),
        Case("network cards of 10 MB/s", {**NETWORK_CARDS, "mobility": False}),
        Case("network cards of 10 MB/s, half of the hosts on the move", NETWORK_CARDS),
    ),
    metrics=(*MERIT, ENERGY, "share.layer"),
    plots=(
        Dots("main", MERIT, "Figure 13: figures of merit with the whole and with half of a resource"),
        Stacks("response", _PARTS, "Figure 14: what the response time is made of"),
        *(
            ApplicationDots(
                f"violations-{name.split()[-1]}",
                (VIOLATIONS,),
                f"Figure 15: violations by application, {name}",
                name,
            )
            for name in ("normal", *_CONSTRAINTS)
        ),
    ),
    short=SWEEP_SHORT,
    claims=(
        *(
            extreme(
                f"MAB+DASO has the highest reward of the paper's models with {case}",
                Cell(SPLITPLACE, "reward", case),
                SWEPT,
                highest=True,
            )
            for case in _CONSTRAINTS
        ),
        *(
            changes(f"all rewards are lower with {case}", SWEPT, "reward", ("normal", case), rises=False)
            for case in _CONSTRAINTS
        ),
        *(
            steady(
                f"accuracy stays (within a point) with {case} for policies that do not look at rewards",
                _REWARD_FREE,
                "accuracy",
                ("normal", case),
                1.0,
            )
            for case in _CONSTRAINTS
        ),
    ),
    references=(OURS,),
)

FIG16 = Experiment(
    name="fig16",
    title="One application only (Figures 16 and 17)",
    question="Do the policies keep their order when all tasks are of one kind?",
    figures=("Figure 16", "Figure 17"),
    policies=SWEEP,
    cases=(
        Case("all"),
        Case("MNIST only", {"mix": {"mnist": 1.0}}),
        Case("FashionMNIST only", {"mix": {"fashionmnist": 1.0}}),
        Case("CIFAR100 only", {"mix": {"cifar100": 1.0}}),
    ),
    metrics=(*MERIT, "share.layer"),
    plots=(
        Dots("main", MERIT, "Figure 16: figures of merit by workload"),
        Stacks("response", _PARTS, "Figure 17: what the response time is made of"),
    ),
    short=SWEEP_SHORT,
    claims=(
        *(
            extreme(
                f"MAB+DASO has the highest reward of the paper's models, {case}",
                Cell(SPLITPLACE, "reward", case),
                SWEPT,
                highest=True,
            )
            for case in ("MNIST only", "FashionMNIST only", "CIFAR100 only")
        ),
        changes(
            "MNIST alone is more accurate, for all", SWEPT, "accuracy", ("all", "MNIST only"), rises=True
        ),
        changes(
            "MNIST alone is answered sooner, for all", SWEPT, RESPONSE, ("all", "MNIST only"), rises=False
        ),
    ),
    references=(OURS,),
)

_CLOUD = "whole+earliest-finish"

FIG18 = Experiment(
    name="fig18",
    title="Edge against cloud (Figure 18)",
    question="Is it worth sending whole networks' work to machines with memory, far away?",
    figures=("Figure 18",),
    policies=(SPLITPLACE, _CLOUD),
    cases=(Case("edge"), Case("cloud", CLOUD)),
    metrics=(*MERIT, ENERGY),
    plots=(Dots("main", (VIOLATIONS, RESPONSE), "Figure 18: response and violations"),),
    claims=(
        Claim(
            "SplitPlace on the edge answers sooner than whole networks in the cloud",
            ((Cell(SPLITPLACE, RESPONSE, "edge"), Cell(_CLOUD, RESPONSE, "cloud")),),
            high=0,
        ),
        Claim(
            "SplitPlace on the edge violates fewer deadlines than whole networks in the cloud",
            ((Cell(SPLITPLACE, VIOLATIONS, "edge"), Cell(_CLOUD, VIOLATIONS, "cloud")),),
            high=0,
        ),
    ),
)

_PLACEMENTS = ("random", "gobi", "earliest-finish")
_SPLITS = ("layer", "semantic")

FIG19 = Experiment(
    name="fig19",
    title="What splitting and what placement do to the response (Figure 19)",
    question="Does the response depend more on how a task is split or on where its pieces run?",
    figures=("Figure 19",),
    policies=tuple(f"{split}+{placement}" for split in _SPLITS for placement in _PLACEMENTS),
    metrics=(RESPONSE, "response_intervals.p95", VIOLATIONS, "reward"),
    plots=(Dots("main", (RESPONSE, VIOLATIONS), "Figure 19: response by split and placement"),),
    claims=(
        Claim(
            "splitting matters more: with every placement, layer takes longer than semantic with any other",
            tuple(
                (Cell(f"layer+{slow}", RESPONSE), Cell(f"semantic+{fast}", RESPONSE))
                for slow in _PLACEMENTS
                for fast in _PLACEMENTS
            ),
            low=0,
        ),
    ),
)
