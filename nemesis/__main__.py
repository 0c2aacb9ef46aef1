"""`python -m nemesis`: run the system under faults and say which promises it broke (docs/nemesis.md)."""

import argparse
import asyncio
import dataclasses
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from nemesis import history as records
from nemesis.checker import check
from nemesis.faults import FAMILIES, Family
from nemesis.history import History
from nemesis.poison import POISONS
from nemesis.report import as_json, show
from nemesis.run import Plan, notes, run
from nemesis.samples import Reference, load
from nemesis.system import StartError

SHIPPED = Path(__file__).parents[1] / "splitplace" / "shipped_store"
_INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nemesis", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="minutes of faults (default: 2)")
    parser.add_argument("--seed", type=int, default=1, help="equal seeds give equal schedules (default: 1)")
    parser.add_argument(
        "--faults",
        type=_families,
        default=tuple(FAMILIES),
        help=f"list with commas of {', '.join(FAMILIES)}, or none (default: all)",
    )
    parser.add_argument(
        "--poisons", type=_poisons, help="list with commas of hostile messages (default: all; see --list)"
    )
    parser.add_argument("--rate", type=float, default=8.0, help="tasks a second (default: 8)")
    parser.add_argument("--nodes", type=int, default=4, help="edge nodes (default: 4)")
    parser.add_argument(
        "--processes", action="store_true", help="each service as a process of its own (default: one for all)"
    )
    parser.add_argument("--starved", type=int, default=0, help="processes that burn a core all the time")
    parser.add_argument(
        "--starve-from",
        type=float,
        default=0.0,
        metavar="MINUTE",
        help="let them begin this many minutes after the first fault (default: 0)",
    )
    parser.add_argument("--gap-s", type=float, default=4.0, help="mean seconds between faults (default: 4)")
    parser.add_argument("--store", type=Path, default=SHIPPED, help="model store whose samples are sent")
    parser.add_argument(
        "--folder", type=Path, help="keep history and logs there (default: a temporary folder)"
    )
    parser.add_argument("--list", action="store_true", help="print the schedule and end")
    parser.add_argument(
        "--check", type=Path, metavar="HISTORY", help="only judge the history of an earlier run"
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    return parser


def _families(text: str) -> tuple[Family, ...]:
    names = () if text == "none" else tuple(text.split(","))
    found = tuple(family for family in FAMILIES if family in names)
    if len(found) != len(set(names)):
        raise argparse.ArgumentTypeError(f"{text!r}: choose from {', '.join(FAMILIES)}")
    return found


def _poisons(text: str) -> tuple[str, ...]:
    known = [poison.name for poison in POISONS]
    names = tuple(text.split(","))
    if unknown := set(names) - set(known):
        raise argparse.ArgumentTypeError(
            f"no poison {', '.join(sorted(unknown))}: choose from {', '.join(known)}"
        )
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return 0 if every promise was kept, 1 if not, 2 if the run could not begin."""
    given = _parser().parse_args(arguments)
    plan = Plan(
        *(given.minutes, given.seed, given.faults, given.rate, given.nodes, given.starved, given.gap_s),
        starve_from_s=60 * given.starve_from,
        apart=given.processes,
    )
    if given.poisons:
        plan = dataclasses.replace(plan, poisons=given.poisons)
    err = Console(stderr=True, highlight=False)
    if given.list:
        for fault in plan.faults():
            sys.stdout.write(f"{fault.begins_s:7.1f} s  {fault.family:8} {fault.text}\n")
        return 0
    try:
        applications = load(given.store)
        if given.check is not None:
            events = list(records.read(given.check.read_text(encoding="utf-8").splitlines()))
        else:
            folder = given.folder or Path(tempfile.mkdtemp(prefix="nemesis-"))
            folder.mkdir(parents=True, exist_ok=True)
            err.print(f"history and logs: {folder}")
            with History(folder / "history.jsonl") as history:
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                asyncio.run(run(plan, folder, history, applications, err.print))
            events = history.records
    except (StartError, OSError, KeyError, ValueError) as error:
        err.print(f"the run could not begin: {error}")
        return 2
    except KeyboardInterrupt:
        err.print("interrupted; everything was ended")
        return _INTERRUPTED
    verdict = check(events, Reference(applications))
    if given.json:
        settings = {name: str(value) for name, value in vars(plan).items()}
        sys.stdout.write(as_json(verdict, settings) + "\n")
    else:
        show(verdict, notes(events), Console())
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
