"""The `splitplace` command: finds the part or subcommand that is meant, and loads only that.

Exit codes: see `splitplace.commands.shared.exit_codes`.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated

import typer

from splitplace.commands.shared.exit_codes import ExitCode

PARTS: Mapping[str, tuple[str, str]] = {
    "gateway": ("splitplace.services.gateway.__main__", "Take tasks from sensors and answer them."),
    "splitter": ("splitplace.services.splitter.__main__", "Decide how each task is split."),
    "placer": ("splitplace.services.placer.__main__", "Decide which node runs which fragment."),
    "resource-monitor": ("splitplace.services.resource_monitor.__main__", "Watch the edge nodes."),
    "result-aggregator": ("splitplace.services.result_aggregator.__main__", "Merge outputs into results."),
    "node": ("splitplace.edge_node.__main__", "Run fragments on this device."),
}
"""Processes of the system: their `main` gets the rest of the command line as it is, with `--help`."""

TOOLS: Mapping[str, tuple[str, str]] = {
    "models": ("splitplace.commands.models.command", "Build, evaluate and list applications."),
}
"""As parts: their `main` gets the rest of the command line."""

COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": (
        "splitplace.commands.demo.command",
        "Watch a whole system at work: services, nodes, a sensor, real images.",
    ),
    "up": ("splitplace.commands.up", "Run all five services."),
    "broker": ("splitplace.commands.broker", "Run a broker with the right settings."),
    "submit": ("splitplace.commands.submit", "Send pictures or arrays as one task and print the answer."),
    "status": ("splitplace.commands.status", "Show services and nodes."),
    "watch": ("splitplace.commands.watch", "Show metrics and decisions as they come."),
    "doctor": (
        "splitplace.commands.doctor.command",
        "Find what is wrong with an installation, and how to mend it.",
    ),
    "experiments": (
        "splitplace.commands.experiments",
        "Repeat the paper's experiments on the simulator, a page each.",
    ),
    "simulate": (
        "splitplace.commands.simulate",
        "Run policies on a virtual clock: 50 hosts for eight hours take seconds.",
    ),
    "replay": (
        "splitplace.commands.replay",
        "Estimate from logged decisions how another split policy would have fared.",
    ),
    "asyncapi": ("splitplace.commands.asyncapi.command", "Print the AsyncAPI document of all topics."),
}
"""Subcommands: the module that holds each, and the first line of its help."""

_HELP = "Run networks that are too big for one small device on the devices you already own, over MQTT."
_EPILOG = (
    "Exit codes: 0 it worked; 1 something is wrong; 2 wrong flags; 3 submit: refused; "
    "4 submit: expired or failed; 5 broker or gateway unreachable."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command. Exits with a code of `splitplace.commands.shared.exit_codes`.

    Args:
        arguments: without the program's name; by default those of this process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = next((argument for argument in given if not argument.startswith("-")), None)
    delegated = {**PARTS, **TOOLS}
    if chosen in delegated and given[0] == chosen:
        _delegate(delegated[chosen][0], given[1:])
    else:
        _application(chosen)(args=given, prog_name="splitplace")


def _delegate(module: str, arguments: Sequence[str]) -> None:
    from pydantic import ValidationError  # noqa: PLC0415 - `splitplace --help` does without it

    from splitplace.commands.shared.options import explain  # noqa: PLC0415

    try:
        import_module(module).main(arguments)
    except ValidationError as error:
        if not error.title.endswith("Settings"):
            raise
        print(explain(error), file=sys.stderr)
        sys.exit(ExitCode.USAGE)


def _application(chosen: str | None) -> typer.Typer:
    """All subcommands by name and summary, of which only the chosen one is really loaded."""
    app = typer.Typer(
        help=_HELP, epilog=_EPILOG, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    app.callback()(_options)
    for name, (module, summary) in COMMANDS.items():
        if name == chosen:
            app.command(name, rich_help_panel="Commands")(import_module(module).command)
        else:
            app.command(name, help=summary, rich_help_panel="Commands")(_not_loaded)
    for panel, table in (("Commands", TOOLS), ("Parts", PARTS)):
        for name, (_, summary) in table.items():
            app.command(name, help=summary, rich_help_panel=panel)(_not_loaded)
    return app


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        from splitplace.bus.service import software_version  # noqa: PLC0415 - loads the whole bus

        print(software_version())
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options before the subcommand."""


def _not_loaded() -> None:
    """Stands for the subcommands that are not wanted now."""
    raise RuntimeError("only the chosen subcommand can be run")


if __name__ == "__main__":
    main()
