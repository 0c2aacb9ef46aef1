"""What a live run says of the simulator's constants: hops, time before the decision, work and their spread.

A `Calibration` is fitted to the log of a live run (`fitting.py`), kept as a JSON file, and read by
simulations (`Scenario.calibration`). It knows on what it was fitted, how far it reaches, and how wrong it was
on tasks that it was not fitted to.
"""

from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from splitplace.errors import SplitPlaceError
from splitplace.policies.cost import HOP_MS

STEPS = 20
"""Steps between the quantiles of a distribution that is kept."""

BEYOND = 4.0
"""A calibration reaches this many times beyond the node speeds, links and batches that it was fitted to."""

FEWEST_TASKS = 30
"""Tasks below which a calibration says too little to be used."""

SHIPPED = "shipped.json"
"""File of the calibration that comes with the package, if one does."""

Finite = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class CalibrationError(SplitPlaceError, ValueError):
    """A calibration cannot be read, or a log says too little for one."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Frozen):
    """A distribution, as its quantiles at equal steps from 0 to 1; linear between them."""

    quantiles: Annotated[tuple[Finite, ...], Field(min_length=2, max_length=101)]

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if any(left > right for left, right in zip(self.quantiles, self.quantiles[1:], strict=False)):
            raise ValueError("quantiles must not fall")
        return self

    @classmethod
    def of(cls, values: Collection[float]) -> Self:
        """Return the distribution of some values. Raises ValueError without any."""
        if not values:
            raise ValueError("a distribution needs values")
        return cls(quantiles=tuple(np.quantile(list(values), np.linspace(0, 1, STEPS + 1)).tolist()))

    @classmethod
    def constant(cls, value: float) -> Self:
        """Return the distribution that is always one value."""
        return cls(quantiles=(value, value))

    def quantile(self, share: float) -> float:
        """Return the value that is not exceeded with a probability in [0, 1]."""
        place = min(max(share, 0.0), 1.0) * (len(self.quantiles) - 1)
        left = min(int(place), len(self.quantiles) - 2)
        low, high = self.quantiles[left : left + 2]
        return low + (place - left) * (high - low)

    def draw(self, random: Random) -> float:
        """Draw a value."""
        return self.quantile(random.random())

    @property
    def median(self) -> float:
        """The value in the middle."""
        return self.quantile(0.5)


class Range(_Frozen):
    """The least and the greatest value that was met."""

    least: Finite
    greatest: Finite

    def reaches(self, value: float) -> bool:
        """Whether a value lies within `BEYOND` times the range."""
        return self.least / BEYOND <= value <= self.greatest * BEYOND


class Reach(_Frozen):
    """What the run was like that a calibration was fitted to."""

    node_scores: Range
    """Speeds of its nodes in GFLOP/s."""
    batch: Range
    """Inputs of a task."""
    links: Range
    """Links of its nodes in MB/s."""
    nodes: int
    applications: tuple[str, ...]


class Check(_Frozen):
    """The run's own arrivals, simulated with the fitted constants, beside what the run did with them."""

    tasks: int
    """Tasks of the part that the constants were not fitted to."""
    live_hit_rate: Finite
    simulated_hit_rate: Finite
    live_p50_ms: Finite
    simulated_p50_ms: Finite
    live_p95_ms: Finite
    simulated_p95_ms: Finite

    @property
    def hit_rate_error(self) -> float:
        """By how much the simulated hit rate was off, 0 to 1."""
        return abs(self.live_hit_rate - self.simulated_hit_rate)


class Calibration(_Frozen):
    """Constants of the simulator that were fitted to a live run. Durations in ms."""

    measured_on: str
    """The run in words: where, when, how many nodes and tasks."""
    tasks: Annotated[int, Field(ge=1)]
    """Number of tasks that were fitted to."""
    hop_ms: Positive = HOP_MS
    """From process to process through the broker, without bytes: the median."""
    hops: Spread = Spread.constant(1.0)
    """A task's hops over `hop_ms`."""
    intake: Spread = Spread.constant(0.0)
    """From a task's arrival to its decision."""
    work: Spread = Spread.constant(1.0)
    """A task's computing time over what its network's measurements say of nodes of that speed, after the
    factor of its application."""
    work_factors: Mapping[str, Positive] = Field(default_factory=dict)
    """Median of that ratio for each application; 1 for others."""
    speeds_known: bool = True
    """Whether the log told the speeds of the nodes; without them, factors are unknown and taken as 1."""
    reach: Reach | None = None
    """None: it was never fitted, so nothing is known of how far it holds."""
    check: Check | None = None

    def work_factor(self, application: str) -> float:
        """Return how many times as long as described an application's networks take."""
        return self.work_factors.get(application, 1.0)


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file. Raises CalibrationError."""
    try:
        return Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"{path} is no calibration (splitplace calibrate makes one): {error}"
        ) from error


def shipped_calibration() -> Calibration:
    """Return the calibration that comes with the package. Raises CalibrationError where there is none."""
    file = files("splitplace.simulator").joinpath("calibrations", SHIPPED)
    if not file.is_file():
        raise CalibrationError(
            "there is no calibration yet. On a machine with nothing else to do: splitplace demo --tasks 200 "
            "--log run.jsonl, then splitplace calibrate run.jsonl"
        )
    return Calibration.model_validate_json(file.read_text(encoding="utf-8"))
