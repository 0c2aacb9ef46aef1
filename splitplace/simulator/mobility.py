"""Traces of links that change while hosts ride on vehicles; `splitplace.simulator.vehicles` makes them."""

import csv
from dataclasses import dataclass
from importlib.resources import files
from math import inf, isfinite
from pathlib import Path
from typing import IO

from splitplace.errors import SplitPlaceError

COLUMNS = ("second", "vehicle", "bandwidth_factor", "extra_latency_ms")
MAX_ROWS = 1_000_000
MAX_LATENCY_MS = 60_000.0


class TraceError(SplitPlaceError, ValueError):
    """The trace cannot be used."""


@dataclass(frozen=True, slots=True)
class MobilityTrace:
    """The link of every vehicle at equal time steps."""

    step_ms: float
    factors: tuple[tuple[float, ...], ...]
    """Factor on the bandwidth, by vehicle and step."""
    latencies_ms: tuple[tuple[float, ...], ...]
    """Added latency, by vehicle and step."""

    @property
    def vehicles(self) -> int:
        """Number of vehicles."""
        return len(self.factors)

    @property
    def steps(self) -> int:
        """Number of steps, after which the trace repeats."""
        return len(self.factors[0])

    def at(self, vehicle: int, step: int) -> tuple[float, float]:
        """Return bandwidth factor and extra latency in ms."""
        step %= self.steps
        return self.factors[vehicle][step], self.latencies_ms[vehicle][step]


def trace(path: Path | None = None) -> MobilityTrace:
    """Read the bundled trace, or a CSV file with the columns `COLUMNS`.

    Raises:
        TraceError: the file cannot be read, or is not a trace.
    """
    if path is None:
        with files("splitplace.simulator").joinpath("traces", "vehicles.csv").open(encoding="utf-8") as file:
            return _read(file, "vehicles.csv")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _read(file, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error


def _read(file: IO[str], name: str) -> MobilityTrace:
    by_vehicle: dict[str, dict[float, tuple[float, float]]] = {}
    number = 1
    try:
        for number, row in enumerate(csv.DictReader(file), start=2):
            factor, latency_ms = float(row["bandwidth_factor"]), float(row["extra_latency_ms"])
            if number > MAX_ROWS or not (0 <= factor < inf and 0 <= latency_ms <= MAX_LATENCY_MS):
                raise ValueError("out of range")  # noqa: TRY301 - the handler adds the line
            by_vehicle.setdefault(row["vehicle"], {})[float(row["second"])] = (factor, latency_ms)
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise TraceError(f"{name}: line {number}: {error}") from error
    seconds = sorted(next(iter(by_vehicle.values()), {}))
    step_s = seconds[1] - seconds[0] if len(seconds) > 1 else 0.0
    even = all(isfinite(s) and s == seconds[0] + n * step_s for n, s in enumerate(seconds))
    if step_s <= 0 or not even or any(sorted(points) != seconds for points in by_vehicle.values()):
        raise TraceError(f"{name}: every vehicle needs a row for the same seconds, at equal steps")
    series = [[points[second] for second in seconds] for points in by_vehicle.values()]
    return MobilityTrace(
        step_ms=1000 * step_s,
        factors=tuple(tuple(factor for factor, _ in points) for points in series),
        latencies_ms=tuple(tuple(latency_ms for _, latency_ms in points) for points in series),
    )
