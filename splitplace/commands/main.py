"""The `splitplace` command. Each subcommand is imported only when it is run.

Exit codes: see `splitplace.errors.ExitCode`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, NoReturn

import typer

from splitplace.commands.shared.lazy_group import LazyCommand, LazyGroup
from splitplace.terminal import run

_PARTS = "Parts"

COMMANDS: Mapping[str, LazyCommand] = {
    "demo": LazyCommand(
        "See why a network is split: a whole system at work, in three acts.",
        "splitplace.commands.demo.command:command",
        extra="edge",
    ),
    "up": LazyCommand("Run all five services.", "splitplace.commands.up:command"),
    "services": LazyCommand("Run all five services in this process.", "splitplace.commands.services:command"),
    "broker": LazyCommand("Run a broker with the right settings.", "splitplace.commands.broker:command"),
    "submit": LazyCommand(
        "Send pictures, arrays or a sound as one task and print the answer.",
        "splitplace.commands.submit.command:command",
    ),
    "camera": LazyCommand(
        "Send the pictures of a camera, a video, a folder or a topic, and print the answers.",
        "splitplace.commands.camera.command:command",
        extra="camera",
    ),
    "status": LazyCommand("Show services and nodes.", "splitplace.commands.status:command"),
    "watch": LazyCommand(
        "Say what happens and why, as it happens.", "splitplace.commands.watch.command:command"
    ),
    "dashboard": LazyCommand(
        "Show the system in a browser: is it well, which node is slow, why was this task late.",
        "splitplace.commands.dashboard.command:command",
    ),
    "home-assistant": LazyCommand(
        "Tell Home Assistant by MQTT discovery what there is: applications, nodes, sensors, and a light.",
        "splitplace.commands.home_assistant.command:command",
    ),
    "doctor": LazyCommand(
        "Find what is wrong with an installation, and say how to fix it.",
        "splitplace.commands.doctor.command:command",
    ),
    "models": LazyCommand(
        "Add, build, measure and keep applications: networks as measured fragments.",
        "splitplace.commands.models.command:app",
    ),
    "secure": LazyCommand(
        "Users, certificates and access rules of the broker.", "splitplace.commands.secure.command:app"
    ),
    "service": LazyCommand(
        "Run a node, the services or the broker under systemd.", "splitplace.commands.service.command:app"
    ),
    "backup": LazyCommand(
        "Copy what must not be lost into one file: journal, learners' state, users, networks of your own.",
        "splitplace.commands.backup:backup_command",
    ),
    "restore": LazyCommand(
        "Put back what a backup holds; all parts must be stopped.",
        "splitplace.commands.backup:restore_command",
    ),
    "simulate": LazyCommand(
        "Run policies on simulated hosts: eight hours take seconds.", "splitplace.commands.simulate:command"
    ),
    "experiments": LazyCommand(
        "Repeat the paper's experiments on the simulator.", "splitplace.commands.experiments:command"
    ),
    "plan": LazyCommand(
        "Will my nodes make it? Predict hit rate and response by calibrated simulation.",
        "splitplace.commands.plan.command:command",
    ),
    "calibrate": LazyCommand(
        "Fit the simulator's hops and noise to the log of a live run, with the fit's error.",
        "splitplace.commands.calibrate:command",
    ),
    "replay": LazyCommand(
        "Estimate from logged decisions how another split policy would do.",
        "splitplace.commands.replay:command",
    ),
    "asyncapi": LazyCommand(
        "Print the AsyncAPI document of all topics.", "splitplace.commands.asyncapi.command:command"
    ),
    "gateway": LazyCommand(
        "Take tasks from sensors and answer them.", "splitplace.services.gateway.__main__:app", _PARTS
    ),
    "splitter": LazyCommand(
        "Decide how each task is split.", "splitplace.services.splitter.__main__:app", _PARTS
    ),
    "placer": LazyCommand(
        "Decide which node runs which fragment.", "splitplace.services.placer.__main__:app", _PARTS
    ),
    "resource-monitor": LazyCommand(
        "Watch the edge nodes.", "splitplace.services.resource_monitor.__main__:app", _PARTS
    ),
    "result-aggregator": LazyCommand(
        "Merge outputs into results.", "splitplace.services.result_aggregator.__main__:app", _PARTS
    ),
    "node": LazyCommand(
        "Run fragments on this device.", "splitplace.edge_node.__main__:app", _PARTS, extra="edge"
    ),
}
"""Every subcommand by its name. The parts are what `up` and `node` run, for several machines."""

_HELP = "Run networks that are too big for one small device on the devices you already own, over MQTT."
_EPILOG = (
    "Exit codes: 0 success; 1 a problem was found; 2 wrong flags or settings; 3 submit: refused; "
    "4 submit: expired or failed; 5 broker or gateway unreachable."
)


class _Commands(LazyGroup):
    lazy_commands = COMMANDS


app = typer.Typer(
    cls=_Commands, help=_HELP, epilog=_EPILOG, no_args_is_help=True, rich_markup_mode="markdown"
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        from splitplace.bus.service import software_version  # noqa: PLC0415 - loads the whole bus

        print(software_version())
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Take the options before the subcommand."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with a code of `splitplace.errors.ExitCode`.

    Args:
        arguments: without the program's name. They default to those of this process.
    """
    run(app, "splitplace", arguments)


if __name__ == "__main__":
    main()
