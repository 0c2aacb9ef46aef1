"""Figure 2 of the paper on networks of real size, where they fit and where not."""

from collections.abc import Collection, Sequence

from splitplace.experiments.metrics import RESPONSE, VIOLATIONS
from splitplace.experiments.plan import ApplicationDots, Case, Cell, Claim, Dots, Experiment, PolicyRow

SHIPPED = "resnet50"
FAMILIES = {SHIPPED: "ResNet50-V2", "mobilenet": "MobileNetV2", "inception": "InceptionV3"}
"""The paper's families at full width, by application. The page is about those that the store has."""

SMALL_MEGABYTES = 128
"""Memory of a node that can prepare and hold each stage of ResNet50-V2, but not the whole of it."""
LARGE_MEGABYTES = 256
"""Memory of a node that can prepare and hold the whole, too."""

_TOO_SMALL, _LARGE = f"nodes of {SMALL_MEGABYTES} MB", f"nodes of {LARGE_MEGABYTES} MB"
_METRICS = ("accuracy", RESPONSE)


def _row(arm: str) -> PolicyRow:
    """Return the row of a way to split that is always chosen; stages go where the task ends first."""
    return PolicyRow(arm, f"{arm}+earliest-finish", (arm,))


def _memory(megabytes: float) -> dict[str, object]:
    """Return the changes that give ten Raspberry Pi 4 a memory budget."""
    return {"memory_factor": megabytes / 3700}


def _differences(metric: str) -> tuple[tuple[Cell, Cell], ...]:
    return tuple(
        (Cell("layer", metric, case), Cell("semantic", metric, case)) for case in (_TOO_SMALL, _LARGE)
    )


def _listed(names: Sequence[str]) -> str:
    """Return names as in a sentence: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def of_families(networks: Collection[str]) -> Experiment:
    """Return the experiment with the paper's families among some networks, each in as many tasks.

    So figures of all tasks are means of the families. Without any of them it is that of ResNet50-V2.
    """
    names = [name for name in FAMILIES if name in networks] or [SHIPPED]
    there = _listed([FAMILIES[name] for name in names])
    others = _listed([FAMILIES[name] for name in FAMILIES if name not in names])
    several = len(names) > 1
    what = "networks" if several else "a network"
    without = f" {others} is not among the networks." if others and several else ""
    shown = f"{there}, the mean of the families," if several else there
    families = ApplicationDots(
        "families", _METRICS, f"Accuracy and response by family, {_TOO_SMALL}", case=_TOO_SMALL
    )
    return Experiment(
        name="fig2-real",
        title=f"Layer against semantic splits of {there} (Figure 2, on {what} of real size)",
        question=(
            "What does a semantic split of a network with millions of weights lose in accuracy and save in "
            f"time, on ten Raspberry Pi 4 whose memory is smaller than the whole network, or larger?{without}"
        ),
        figures=("Figure 2",),
        policies=(),
        more=(_row("whole"), _row("layer"), _row("semantic")),
        scenario={
            "profile": "store",
            "mix": dict.fromkeys(names, 1.0),
            "hosts": 10,
            "interval_s": 6.0,
            "intervals": 60,
            "rate": 1,
            "discipline": "deadline",
            "through_broker": True,
            "mobility": False,
            "rules": "product",
        },
        cases=(Case(_TOO_SMALL, _memory(SMALL_MEGABYTES)), Case(_LARGE, _memory(LARGE_MEGABYTES))),
        metrics=(*_METRICS, "response_intervals.p95", VIOLATIONS, "tasks.arrived", "tasks.refused"),
        plots=(
            Dots("main", _METRICS, f"Accuracy and response of {shown} by way to split"),
            *([families] if several else []),
        ),
        claims=(
            Claim("layer splits are more accurate", _differences("accuracy"), low=0),
            Claim("semantic splits answer sooner", _differences(RESPONSE), low=0),
            _several_refused() if several else _all_refused(),
        ),
        references=("layer",),
        tested=_METRICS,
        for_networks=of_families,
    )


def _all_refused() -> Claim:
    return Claim(
        "nodes that cannot hold the whole network answer none of its tasks without splitting",
        ((Cell("whole", "tasks.refused", _TOO_SMALL), Cell("whole", "tasks.arrived", _TOO_SMALL)),),
        low=-0.5,
        source="aim",
    )


def _several_refused() -> Claim:
    return Claim(
        "without splitting, tasks of networks that no node can hold are refused",
        ((Cell("whole", "tasks.refused", _TOO_SMALL), Cell("layer", "tasks.refused", _TOO_SMALL)),),
        low=0,
        source="aim",
    )


FIG2_REAL = of_families([SHIPPED])
