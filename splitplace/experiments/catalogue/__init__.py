"""All experiments, in the order in which `all` runs them, by name and by the paper's figures."""

import re
from collections.abc import Mapping

from splitplace.experiments.catalogue.beyond import ARMS, DRIFT, FAILURES, INTERVAL
from splitplace.experiments.catalogue.comparison import BZIP2, FIG2, FIG6, TABLE4
from splitplace.experiments.catalogue.mixed import GRADIENT, MIXED
from splitplace.experiments.catalogue.own import STORE
from splitplace.experiments.catalogue.real import FIG2_REAL
from splitplace.experiments.catalogue.sensitivity import FIG9, FIG10
from splitplace.experiments.catalogue.surroundings import FIG13, FIG16, FIG18, FIG19
from splitplace.experiments.plan import Experiment

EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        TABLE4,
        FIG2,
        FIG2_REAL,
        FIG6,
        FIG18,
        FIG19,
        DRIFT,
        ARMS,
        INTERVAL,
        MIXED,
        GRADIENT,
        STORE,
        BZIP2,
        FAILURES,
        FIG10,
        FIG16,
        FIG13,
        FIG9,
    )
}
"""By name: what decides most first, the longest last, because an interrupted command keeps finished pages."""


def experiment(name: str) -> Experiment:
    """Return the experiment of a name, or that repeats a figure (`fig11` is in `fig9`). Raises KeyError."""
    return EXPERIMENTS[name] if name in EXPERIMENTS else _BY_FIGURE[name]


def _short(figure: str) -> str:
    """Shorten `Figure 11` to `fig11`."""
    return re.sub(r"^figure\s+", "fig", figure.lower())


_BY_FIGURE = {
    _short(figure): experiment for experiment in EXPERIMENTS.values() for figure in experiment.figures
}
