"""Faults as values, and schedules of them that a seed reproduces. Pure."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Family = Literal[
    "kill", "stop", "pause", "double", "all", "broker", "net", "disk", "starve", "clone", "poison"
]
FAMILIES: tuple[Family, ...] = get_args(Family)

BROKER = "broker"
GATEWAY = "gateway"
SERVICES = (GATEWAY, "splitter", "placer", "resource-monitor", "result-aggregator")
TOGETHER = "services"
"""The process that all services share."""

NET_FAULTS = (
    *("latency", "bandwidth", "blackhole", "blackhole-up", "blackhole-down"),
    *("reset", "slicing", "closing"),
)
"""What a proxy can do to a link; `up` is from the part to the broker, `closing` accepts and closes."""

SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LONGEST_PAUSE_OF_ALL_S = 8.0
LEAST_GAP_S = 0.2


@dataclass(frozen=True)
class Fault:
    """Something bad that begins at a moment and is healed at another."""

    number: int
    family: Family
    action: str
    """`kill`, `stop` (SIGTERM), `pause`, `fill`, `burn`, `clone`, the name of a poison or of a net fault."""
    targets: tuple[str, ...]
    begins_s: float
    """From the start of the disturbance."""
    lasts_s: float
    strength: float = 0.0
    """Seconds of latency, bytes a second of bandwidth, bytes a slice, or number of burners."""

    @property
    def text(self) -> str:
        """The fault for people."""
        strength = f" {self.strength:g}" if self.strength else ""
        return f"{self.action}{strength} {'+'.join(self.targets)} for {self.lasts_s:.1f} s"


def schedule(
    seed: int,
    families: Sequence[Family],
    *,
    services: Sequence[str],
    nodes: Sequence[str],
    poisons: Sequence[str],
    length_s: float,
    gap_s: float = 4.0,
) -> list[Fault]:
    """Return the faults of a run, in the order of their beginnings; all are healed before its end.

    Args:
        seed: equal seeds and arguments give equal schedules.
        families: what to draw from.
        services: names of the services' processes.
        nodes: names of the edge nodes.
        poisons: names of the hostile messages.
        length_s: seconds of disturbance.
        gap_s: mean seconds between two beginnings. Faults may overlap: the second often hits the recovery.
    """
    draw = _Draw(random.Random(seed), (*services, *nodes), nodes, poisons)
    faults: list[Fault] = []
    at_s = draw.rng.uniform(0.0, gap_s)
    while families and at_s < length_s - SHORTEST_PAUSE_S:
        family = draw.rng.choice(list(families))
        action, targets, lasts_s, strength = draw.of(family)
        lasts_s = min(lasts_s, length_s - at_s)
        faults.append(Fault(len(faults) + 1, family, action, targets, at_s, lasts_s, strength))
        mean_s = gap_s / 2 if family == "poison" else gap_s
        at_s += draw.rng.expovariate(1 / mean_s) + LEAST_GAP_S
    return faults


Drawn = tuple[str, tuple[str, ...], float, float]
"""Action, targets, seconds and strength."""


class _Draw:
    """Draws what is done to whom, for how long and how hard."""

    def __init__(
        self, rng: random.Random, parts: Sequence[str], nodes: Sequence[str], poisons: Sequence[str]
    ) -> None:
        self.rng = rng
        self._parts = list(parts)
        self._nodes = list(nodes)
        self._poisons = list(poisons)
        self._untried: list[str] = []

    def of(self, family: Family) -> Drawn:
        """Return a fault of a family."""
        ways: dict[Family, Callable[[], Drawn]] = {
            "kill": lambda: ("kill", self._some(1), self._away_s(), 0.0),
            "stop": lambda: ("stop", self._some(1), self._away_s(), 0.0),
            "pause": lambda: ("pause", self._some(1), self._pause_s(), 0.0),
            "double": lambda: self._kill_or_pause(self._some(2), LONGEST_PAUSE_S),
            "all": lambda: self._kill_or_pause((*self._parts, BROKER), LONGEST_PAUSE_OF_ALL_S),
            "broker": lambda: self._kill_or_pause((BROKER,), LONGEST_PAUSE_S),
            "net": self._net,
            "disk": lambda: ("fill", ("disk",), self._hardship_s(), 0.0),
            "starve": lambda: ("burn", ("cpu",), self._hardship_s(), float(self.rng.randint(2, 8))),
            "clone": lambda: ("clone", (self.rng.choice(self._nodes),), self._hardship_s(), 0.0),
            "poison": lambda: (self._poison(), (GATEWAY,), 0.0, 0.0),
        }
        return ways[family]()

    def _some(self, count: int) -> tuple[str, ...]:
        return tuple(self.rng.sample(self._parts, count))

    def _away_s(self) -> float:
        return self.rng.uniform(0.1, 3.0)

    def _hardship_s(self) -> float:
        return self.rng.uniform(2.0, 15.0)

    def _pause_s(self, longest_s: float = LONGEST_PAUSE_S) -> float:
        """Log-uniform, so that short and long pauses are equally common."""
        return float(SHORTEST_PAUSE_S * (longest_s / SHORTEST_PAUSE_S) ** self.rng.random())

    def _kill_or_pause(self, targets: tuple[str, ...], longest_s: float) -> Drawn:
        if self.rng.random() < 1 / 2:
            return "kill", targets, self._away_s(), 0.0
        return "pause", targets, self._pause_s(longest_s), 0.0

    def _net(self) -> Drawn:
        action = self.rng.choice(NET_FAULTS)
        strengths = {
            "latency": self.rng.uniform(0.05, 1.0),
            "bandwidth": self.rng.uniform(20_000, 500_000),
            "slicing": float(self.rng.randint(1, 50)),
        }
        lasts_s = 0.0 if action == "reset" else self._pause_s()
        return action, self._some(self.rng.choice((1, 1, 2))), lasts_s, strengths.get(action, 0.0)

    def _poison(self) -> str:
        """Every poison once, in random order, before any comes again."""
        if not self._untried:
            self._untried = self.rng.sample(self._poisons, len(self._poisons))
        return self._untried.pop()
