"""`splitplace secure`. Each subcommand is imported only when it is run."""

from collections.abc import Mapping

import typer

from splitplace.commands.shared.lazy_group import LazyCommand, LazyGroup


def _command(name: str, module: str, summary: str) -> LazyCommand:
    return LazyCommand(summary, f"splitplace.commands.secure.{module}:{name}_command", extra="secure")


COMMANDS: Mapping[str, LazyCommand] = {
    "init": _command("init", "init", "Give the system certificates, users and access rules."),
    "add": _command(
        "add", "users", "Let somebody in: a node by a joining token, others by a file of credentials."
    ),
    "list": _command("list", "users", "Show who may come in."),
    "remove": _command(
        "remove",
        "users",
        "Keep somebody out, at once: its connections end, and its passwords and tokens are void.",
    ),
    "rotate": _command(
        "rotate",
        "users",
        "Replace a password, the broker's certificate, or the authority. Old and new are good for a while.",
    ),
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
