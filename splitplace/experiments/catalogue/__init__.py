"""All experiments, in the order in which `all` runs them, by their own name and by the paper's figures."""

import re
from collections.abc import Mapping

from splitplace.experiments.catalogue.beyond import ARMS, DRIFT, FAILURES, INTERVAL
from splitplace.experiments.catalogue.comparison import FIG2, FIG6, TABLE4
from splitplace.experiments.catalogue.own import STORE
from splitplace.experiments.catalogue.sensitivity import FIG9, FIG10
from splitplace.experiments.catalogue.surroundings import FIG13, FIG16, FIG18, FIG19
from splitplace.experiments.plan import Experiment

EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        TABLE4,
        FIG2,
        FIG6,
        FIG9,
        FIG10,
        FIG13,
        FIG16,
        FIG18,
        FIG19,
        DRIFT,
        FAILURES,
        ARMS,
        INTERVAL,
        STORE,
    )
}
"""By name."""


def experiment(name: str) -> Experiment:
    """The experiment of that name, or that repeats that figure (`fig11`: part of `fig9`). Raises KeyError."""
    return EXPERIMENTS[name] if name in EXPERIMENTS else _BY_FIGURE[name]


def _short(figure: str) -> str:
    """`Figure 11` as `fig11`."""
    return re.sub(r"^figure\s+", "fig", figure.lower())


_BY_FIGURE = {_short(figure): each for each in EXPERIMENTS.values() for figure in each.figures}
