"""Options and settings that several subcommands share."""

import re
import sys
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from splitplace.bus.settings import Settings
from splitplace.commands.shared.exit_codes import ExitCode

BrokerOption = Annotated[
    str | None,
    typer.Option(
        "--broker",
        help="URL of the broker, mqtt://host:port or mqtts://. [default: SPLITPLACE_BROKER, else mqtt://127.0.0.1:1883]",
    ),
]
PrefixOption = Annotated[
    str | None,
    typer.Option("--prefix", help="Topic prefix. [default: SPLITPLACE_PREFIX, else splitplace/v1]"),
]

_UNITS_MS = {"ms": 1.0, "s": 1000.0, "m": 60_000.0, "min": 60_000.0, "h": 3_600_000.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h)\s*")


def parse_duration_ms(text: str) -> float:
    """A duration like `300ms`, `2s` or `1.5min` in milliseconds. Raises typer.BadParameter."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a duration like 300ms, 2s or 1.5min")
    return float(match[1]) * _UNITS_MS[match[2]]


def settings_from(broker: str | None, prefix: str | None) -> Settings:
    """Settings from flags, then `SPLITPLACE_*` variables, then the TOML file. Exits where they are wrong."""
    given = (("--broker", broker), ("--prefix", prefix))
    arguments = [part for flag, value in given if value is not None for part in (flag, value)]
    try:
        return Settings.from_arguments(arguments, "splitplace")
    except ValidationError as error:
        fail(explain(error), ExitCode.USAGE)


def explain(error: ValidationError) -> str:
    """Wrong settings, one line each."""
    lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return "wrong settings: " + "; ".join(lines)


def fail(reason: str, code: ExitCode) -> NoReturn:
    """Prints why, and exits."""
    print(reason, file=sys.stderr)
    raise typer.Exit(code)
