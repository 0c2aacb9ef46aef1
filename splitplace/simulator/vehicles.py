"""A model of vehicles in a city and of their links, which made the bundled trace.

`python -m splitplace.simulator.vehicles > splitplace/simulator/traces/vehicles.csv` makes it again.

As in the paper (section 6.1), vehicles drive at 30 to 50 km/h on a grid of streets, turn at random at
crossings, and connect to the nearest of a few access points. The signal falls with the third power of the
distance. The bandwidth follows Shannon's law, relative to the bandwidth next to the access point.
"""

import sys
from collections.abc import Iterable, Iterator
from math import hypot, log2
from random import Random
from typing import IO

from splitplace.simulator.mobility import COLUMNS

VEHICLES = 16
STEPS = 240
STEP_S = 30
BLOCKS = 10
BLOCK_METRES = 200.0
ACCESS_POINTS = tuple((x, y) for x in (300.0, 1000.0, 1700.0) for y in (300.0, 1000.0, 1700.0))
NEAR_METRES = 25.0
NEAR_SNR = 1e5
"""50 dB next to an access point."""
PATH_LOSS = 3.0
RETRANSMISSION_MS = 2.0
"""Added latency is this times (1 / bandwidth factor - 1)."""

Position = tuple[float, str, float, float]
"""Second, vehicle, x and y in metres from a corner of the city."""


def quality(x: float, y: float) -> tuple[float, float]:
    """Return bandwidth factor and extra latency in ms at a position, in metres from a corner of the city."""
    metres = max(NEAR_METRES, min(hypot(x - a, y - b) for a, b in ACCESS_POINTS))
    snr = NEAR_SNR * (NEAR_METRES / metres) ** PATH_LOSS
    factor = log2(1 + snr) / log2(1 + NEAR_SNR)
    return factor, RETRANSMISSION_MS * (1 / factor - 1)


def drive(random: Random, steps: int, step_s: float) -> Iterator[tuple[float, float]]:
    """Yield the position of a vehicle after each step, in metres. It turns at random at each crossing."""
    column, row = random.randint(0, BLOCKS), random.randint(0, BLOCKS)
    metres_per_s = random.uniform(30, 50) / 3.6
    heading, driven = (0, 0), BLOCK_METRES
    for _ in range(steps):
        driven += metres_per_s * step_s
        while driven >= BLOCK_METRES:
            driven -= BLOCK_METRES
            column, row = column + heading[0], row + heading[1]
            back = (-heading[0], -heading[1])
            ways = [(1, 0), (-1, 0), (0, 1), (0, -1)]
            heading = random.choice(
                [
                    way
                    for way in ways
                    if way != back and 0 <= column + way[0] <= BLOCKS and 0 <= row + way[1] <= BLOCKS
                ]
            )
        x, y = BLOCK_METRES * column + driven * heading[0], BLOCK_METRES * row + driven * heading[1]
        yield x, y


def write(file: IO[str], rows: Iterable[Position]) -> None:
    """Write a trace as CSV.

    Args:
        file: a file that is open for text.
        rows: the position of every vehicle at equal time steps.
    """
    print(",".join(COLUMNS), file=file)
    for second, vehicle, x, y in rows:
        factor, latency_ms = quality(x, y)
        print(f"{second:g},{vehicle},{factor:.3f},{latency_ms:.1f}", file=file)


def model(seed: int = 0) -> Iterator[Position]:
    """Yield the positions of the bundled trace."""
    for vehicle in range(VEHICLES):
        places = drive(Random(f"vehicle {vehicle} {seed}"), STEPS, STEP_S)
        for step, (x, y) in enumerate(places):
            yield float(step * STEP_S), str(vehicle), x, y


if __name__ == "__main__":
    write(sys.stdout, model())
