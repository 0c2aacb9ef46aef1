"""`splitplace models`: finds the subcommand that is meant, and loads only that."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import typer

from splitplace.commands.shared.exit_codes import ExitCode

_STORE, _WORKSHOP = "splitplace.commands.models.store", "splitplace.commands.models.workshop"
_MEASURE = "splitplace.commands.models.measure"

SUBCOMMANDS: Mapping[str, tuple[str, str]] = {
    "list": (_STORE, "Show what the model store holds."),
    "inspect": ("splitplace.commands.models.inspect", "Show where a network can be cut, and how it best is."),
    "add": ("splitplace.commands.models.add", "Make an application of a network of your own."),
    "build": (_WORKSHOP, "Build a shipped application: train, split, export, measure, pack."),
    "train": (_WORKSHOP, "Train one network of a shipped application."),
    "evaluate": (_MEASURE, "Measure an application again on labelled pictures."),
    "profile": (_MEASURE, "Time an application's fragments on this machine."),
    "report": (
        "splitplace.commands.models.report",
        "Write a page with pictures: accuracy against time, groups, cuts, sizes.",
    ),
    "export": (_STORE, "Write an application as one archive."),
    "remove": (_STORE, "Delete an application from the store."),
}
"""Subcommands: the module that holds each as `<name>_command`, and the first line of its help."""


def main(arguments: Sequence[str]) -> None:
    """Runs the subcommand. Exits with a code of `splitplace.commands.shared.exit_codes`.

    Args:
        arguments: What stands after `splitplace models`.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that nothing here needs
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    app = typer.Typer(
        help="Build, measure and keep applications: any network as measured fragments.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_no_options)
    for name, (module, summary) in SUBCOMMANDS.items():
        if name == chosen:
            app.command(name)(_load(module, name))
        else:
            app.command(name, help=summary)(_not_loaded)
    app(args=list(arguments), prog_name="splitplace models")


def _load(module: str, name: str) -> Callable[..., Any]:
    try:
        command: Callable[..., Any] = getattr(import_module(module), f"{name}_command")
    except ModuleNotFoundError as error:
        print(f"this needs {error.name}: pip install 'splitplace[models]'", file=sys.stderr)
        sys.exit(ExitCode.PROBLEM)
    return command


def _no_options() -> None:
    """Makes typer keep the subcommand's name even where there is only one."""


def _not_loaded() -> None:
    """Stands for the subcommands that are not wanted now."""
    raise RuntimeError("only the chosen subcommand can be run")
