"""`splitplace secure`. Each subcommand is imported only when it is run."""

from collections.abc import Mapping

import typer

from splitplace.commands.shared.lazy_group import LazyCommand, LazyGroup


def _command(name: str, module: str, summary: str) -> LazyCommand:
    return LazyCommand(summary, f"splitplace.commands.secure.{module}:{name}_command", extra="secure")


COMMANDS: Mapping[str, LazyCommand] = {
    "init": _command("init", "init", "Give the system certificates, users and access rules."),
}
"""Subcommands of `splitplace secure`."""


class _Secure(LazyGroup):
    lazy_commands = COMMANDS
    called = "splitplace secure"


app = typer.Typer(
    cls=_Secure,
    help="Users, certificates and access rules of the broker.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)


@app.callback()
def _group() -> None:
    """Users, certificates and access rules of the broker."""
