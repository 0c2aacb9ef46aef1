"""A command group that imports a subcommand only when it is run: click's lazy loading, for typer.

The help of the group, completion of names and the other subcommands do without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from splitplace.errors import MissingExtraError


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A subcommand that is not imported yet."""

    summary: str
    """The first line of its help."""
    target: str
    """`module:name` of a function, or of a typer application."""
    panel: str = "Commands"
    """Heading in the help of the group."""
    extra: str | None = None
    """The optional dependencies that it needs: `splitplace[extra]`."""


class LazyGroup(TyperGroup):
    """A group whose subcommands stand in a table. Subclasses set `lazy_commands`."""

    lazy_commands: ClassVar[Mapping[str, LazyCommand]] = {}
    called: ClassVar[str] = "splitplace"
    """What a user types before the subcommand."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - those of TyperGroup
        super().__init__(**attributes)
        for name, lazy in self.lazy_commands.items():
            self.add_command(TyperCommand(name, help=lazy.summary, rich_help_panel=lazy.panel))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - typer exports no types
        """Import the subcommand that is meant, in place of its entry in the table."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is None or name not in self.lazy_commands:
            return name, command, rest
        return name, load(name, self.lazy_commands[name], group=self.called), rest


def load(name: str, lazy: LazyCommand, *, group: str = "splitplace") -> Any:  # noqa: ANN401 - a click command
    """Import a subcommand. Raises MissingExtraError where its packages are not installed."""
    module, _, attribute = lazy.target.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if lazy.extra is None or (error.name or "").startswith("splitplace"):
            raise
        raise MissingExtraError(f"{group} {name}", str(error.name), lazy.extra) from error
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False, rich_markup_mode="markdown")
        found.command(name)(function)
    return typer.main.get_command(found)
