"""Make a trace of vehicles driven by SUMO. Needs the extra `sumo`.

`python -m splitplace.simulator.sumo > mine.csv`

The city and the access points are those of `simulator.vehicles`. The driving is done by SUMO (Simulation of
Urban Mobility), the tool that the paper used.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from random import Random
from xml.etree import ElementTree as ET

from splitplace.errors import SplitPlaceError
from splitplace.simulator.vehicles import BLOCK_METRES, BLOCKS, STEP_S, STEPS, VEHICLES, Position, write

WAYPOINTS = 150
"""Waypoints of each vehicle: more than it can reach."""


class SumoError(SplitPlaceError, RuntimeError):
    """SUMO is not installed, or fails."""


def binaries() -> Path:
    """Return the folder of SUMO's programs. Raises SumoError if the extra is not installed."""
    try:
        package = import_module("sumo")
    except ImportError as error:
        raise SumoError("SUMO is not installed: install SplitPlace as 'splitplace[sumo]'") from error
    return Path(str(package.SUMO_HOME)) / "bin"


def trips(random: Random) -> str:
    """Return random trips from street to street in SUMO's format. Crossings are named A0 to K10."""
    lines = ["<routes>"]
    for vehicle in range(VEHICLES):
        streets = [_street(random) for _ in range(WAYPOINTS)]
        via = " ".join(streets[1:-1])
        lines.append(f'<trip id="{vehicle}" depart="0" from="{streets[0]}" to="{streets[-1]}" via="{via}"/>')
    return "\n".join([*lines, "</routes>\n"])


def _street(random: Random) -> str:
    column, row = random.randint(0, BLOCKS - 1), random.randint(0, BLOCKS - 1)
    here, there = f"{chr(ord('A') + column)}{row}", f"{chr(ord('A') + column + 1)}{row}"
    if random.random() < 0.5:  # noqa: PLR2004 - a coin
        there = f"{chr(ord('A') + column)}{row + 1}"
    return f"{here}{there}" if random.random() < 0.5 else f"{there}{here}"  # noqa: PLR2004


def drive(seed: int = 0) -> list[Position]:
    """Run SUMO and return the positions of vehicles at equal time steps; absent ones keep their last.

    Raises:
        SumoError: SUMO is not installed or fails.
    """
    programs = binaries()
    with tempfile.TemporaryDirectory(prefix="splitplace-sumo-") as folder:
        net, routes, seen = (Path(folder) / name for name in ("net.xml", "routes.xml", "seen.xml"))
        routes.write_text(trips(Random(f"trips {seed}")), encoding="utf-8")
        _run(
            programs / "netgenerate",
            "--grid",
            f"--grid.number={BLOCKS + 1}",
            f"--grid.length={BLOCK_METRES:g}",
            f"--output-file={net}",
        )
        _run(
            programs / "sumo",
            f"--net-file={net}",
            f"--route-files={routes}",
            f"--fcd-output={seen}",
            f"--device.fcd.period={STEP_S}",
            f"--end={STEPS * STEP_S}",
            f"--seed={seed}",
            "--no-step-log",
        )
        return list(positions(seen))


def positions(seen: Path) -> Iterator[Position]:
    """Read SUMO's output: the position of every vehicle at every step.

    Raises:
        SumoError: a vehicle never appeared.
    """
    root = ET.parse(seen).getroot()  # noqa: S314 - SUMO wrote it just now
    steps = [
        {vehicle.get("id", ""): vehicle for vehicle in step.iter("vehicle")} for step in root.iter("timestep")
    ]
    for name in map(str, range(VEHICLES)):
        places = [
            (float(step[name].get("x", 0)), float(step[name].get("y", 0))) for step in steps if name in step
        ]
        if not places:
            raise SumoError(f"vehicle {name} never drove")
        here, upcoming = places[0], iter(places)
        for number, step in enumerate(steps[:STEPS]):
            here = next(upcoming) if name in step else here
            yield float(number * STEP_S), name, *here


def _run(program: Path, *arguments: str) -> None:
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SumoError(f"{program.name} failed: {done.stderr.strip()[-500:]}")


def main() -> None:
    """Run SUMO and print the trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    try:
        write(sys.stdout, drive(parser.parse_args().seed))
    except SumoError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
