"""`splitplace models`. Each subcommand is imported only when it is run."""

import logging
from collections.abc import Mapping

import typer

from splitplace.commands.shared.lazy_group import LazyCommand, LazyGroup


def _command(name: str, module: str, summary: str) -> LazyCommand:
    return LazyCommand(summary, f"splitplace.commands.models.{module}:{name}_command", extra="models")


COMMANDS: Mapping[str, LazyCommand] = {
    "list": _command("list", "store", "Show what the model store holds, and in which folder."),
    "inspect": _command(
        "inspect",
        "inspect",
        "Show a network's pieces, where it can be cut, and what each stage costs.",
    ),
    "add": _command("add", "add", "Make an application of a network of your own."),
    "build": _command(
        "build", "workshop", "Build a shipped application: train, split, export, measure, pack."
    ),
    "train": _command("train", "workshop", "Train one network of a shipped application."),
    "evaluate": _command("evaluate", "measure", "Measure an application again on labelled pictures."),
    "profile": _command(
        "profile",
        "measure",
        "Measure an application's fragments: time in one thread, memory, what compression leaves of outputs.",
    ),
    "report": _command(
        "report", "report", "Write a page with pictures: accuracy against time, groups, cuts, sizes."
    ),
    "convert": _command(
        "convert", "convert", "Bring applications that SplitPlace 0.2 wrote into the present form."
    ),
    "export": _command("export", "store", "Write an application as one archive."),
    "rollback": _command(
        "rollback", "store", "Put back the version of an application that `models add` replaced."
    ),
    "remove": _command("remove", "store", "Delete an application that you added, with its fragments."),
}
"""Subcommands of `splitplace models`."""


class _Models(LazyGroup):
    lazy_commands = COMMANDS
    called = "splitplace models"


app = typer.Typer(
    cls=_Models,
    help="Add, build, measure and keep applications: networks as measured fragments.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)


@app.callback()
def _quiet_torch() -> None:
    """Silence warnings of torch's exporter about packages that nothing here needs."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
