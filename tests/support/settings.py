"""Settings as a command line gives them."""

from collections.abc import Sequence
from typing import Any, TypeVar

import typer

from splitplace.bus.command_line import settings_command
from splitplace.bus.settings import Settings

SettingsT = TypeVar("SettingsT", bound=Settings)


def settings_from_flags(settings: type[SettingsT], flags: Sequence[str]) -> SettingsT:
    """Parse flags as the command of the part does. Exits with 2 where they are wrong."""
    given: list[dict[str, Any]] = []
    app = settings_command(settings, given.append, "Test.")
    try:
        typer.main.get_command(app).main(args=list(flags), prog_name="test")
    except SystemExit as ended:
        if ended.code:
            raise
    return settings.load(**given[0])
