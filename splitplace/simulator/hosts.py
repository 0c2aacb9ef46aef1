"""The simulated hosts: presets and TOML files."""

import tomllib
from bisect import bisect_right
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from splitplace.errors import SplitPlaceError

PRESETS = ("azure50", "pi3", "pi4", "pi5", "mixed")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class HostError(SplitPlaceError, ValueError):
    """The file of hosts cannot be used."""


class Host(BaseModel):
    """One kind of host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,30}$")]
    weight: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Number of hosts of this kind relative to a kind of weight 1."""
    cores: Annotated[int, Field(ge=1, le=4096)] = 1
    together: Annotated[float, Field(ge=1, le=4096)] = 1.0
    """Speed of one fragment on each core at the same time, against one after the other on all cores.

    Only in profiles whose hosts work like nodes (`deadline`)."""
    score: Positive
    """Speed of a fragment that runs alone, in the unit of `Application.reference_score`."""
    concurrency: Positive = 1.0
    """Number of fragments that run at that speed at the same time."""
    memory_megabytes: Positive
    swap_slowness: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 30.0
    """Factor by which access to swapped memory is slower."""
    megabytes_per_second: Positive
    """Bandwidth of the network interface, in each direction."""
    latency_ms: NonNegative = 0.0
    dollars_per_hour: NonNegative = 0.0
    watts: Annotated[tuple[NonNegative, ...], Field(min_length=2, max_length=101)]
    """Power at equal steps of CPU use from 0 to 100 %; linear between the steps."""

    @cached_property
    def _steps(self) -> list[float]:
        last = len(self.watts) - 1
        return [index / last for index in range(len(self.watts))]

    def power_watts(self, utilisation: float) -> float:
        """Return the power at a CPU use between 0 and 1."""
        steps = self._steps
        upper = min(bisect_right(steps, utilisation), len(steps) - 1)
        share = (utilisation - steps[upper - 1]) / (steps[upper] - steps[upper - 1])
        return self.watts[upper - 1] + share * (self.watts[upper] - self.watts[upper - 1])


class _Broker(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    megabytes_per_second: Positive


class Machines(BaseModel):
    """A file of hosts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    broker: _Broker
    host: Annotated[tuple[Host, ...], Field(min_length=1, max_length=1000)]

    def expand(self, count: int) -> tuple[tuple[str, Host], ...]:
        """Return `count` hosts with their names, kinds interleaved in proportion to their weights.

        Raises:
            HostError: `count` is less than one.
        """
        if count < 1:
            raise HostError(f"{count} hosts are too few")
        total = sum(host.weight for host in self.host)
        made = dict.fromkeys(range(len(self.host)), 0)
        machines = []
        for number in range(1, count + 1):
            # Next comes the kind furthest below its share.
            kind = max(made, key=lambda index: self.host[index].weight * number / total - made[index])
            made[kind] += 1
            host = self.host[kind]
            machines.append((f"{host.kind}-{made[kind]}", host))
        return tuple(machines)


def machines(name: str) -> Machines:
    """Load a preset by name, or a TOML file by path (a name that ends in `.toml`).

    Raises:
        HostError: there is no such preset, or the file cannot be read or is not valid.
    """
    if name in PRESETS:
        text = files("splitplace.simulator").joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")
    elif name.endswith(".toml"):
        try:
            text = Path(name).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise HostError(f"{name}: cannot be read: {error}") from error
    else:
        raise HostError(f"there are no hosts {name!r}: give one of {', '.join(PRESETS)}, or a .toml file")
    try:
        return Machines.model_validate(tomllib.loads(text))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise HostError(f"{name}: {error}") from error
