"""`splitplace models`."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bus.store import ModelStore, StoreError
from cli.exit_codes import ExitCode
from cli.options import repository_folder
from messages.limits import MEBIBYTE


def main(arguments: Sequence[str]) -> None:
    """Build, evaluate and list applications. Exits with a code of `cli.exit_codes`.

    Args:
        arguments: `list`, or `build` or `evaluate` with the arguments of those commands.
    """
    parser = argparse.ArgumentParser(
        "splitplace models", description="Build, evaluate and list applications."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="what the model store holds")
    listing.add_argument("--store", type=Path, default=None, help="the model store (default: store)")
    for name, text in (("build", "train, cut, export and measure"), ("evaluate", "measure again")):
        actions.add_parser(
            name, help=f"{text} (needs torch: pip install 'splitplace[models]')", add_help=False
        )
    known, rest = parser.parse_known_args(arguments)
    if known.action == "list":
        if rest:
            parser.error(f"unknown arguments: {' '.join(rest)}")
        _list(known.store or repository_folder("store"))
    elif importlib.util.find_spec("torch") is None:
        print("this needs torch: pip install 'splitplace[models]'", file=sys.stderr)
        sys.exit(ExitCode.PROBLEM)
    else:
        sys.exit(import_module(f"models.{known.action}").main(arguments[1:]))


def _list(store: Path) -> None:
    try:
        applications = ModelStore(store).applications()
    except StoreError as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.PROBLEM)
    table = Table("application", "variant", title=str(store))
    for heading in ("fragments", "accuracy", "ms an image", "MB of memory"):
        table.add_column(heading, justify="right")
    for application in applications:
        for variant in application.variants:
            fragments = [application.fragment(stage.fragment) for stage in variant.stages]
            table.add_row(
                application.name,
                variant.name,
                str(len(fragments)),
                f"{variant.accuracy:.4f}",
                " + ".join(f"{fragment.milliseconds_per_image:.2f}" for fragment in fragments),
                " + ".join(f"{fragment.peak_memory_bytes / MEBIBYTE:.1f}" for fragment in fragments),
            )
    Console().print(table)
