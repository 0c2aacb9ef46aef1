"""Options and settings that several subcommands share."""

import re
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from splitplace.bus.discovery import FindingSettings, with_broker
from splitplace.bus.settings import Settings
from splitplace.errors import ConfigurationError, ExitCode
from splitplace.messages.limits import MAX_DEADLINE_MS
from splitplace.messages.pictures import FITS, Fit
from splitplace.messages.validation_errors import problem_of
from splitplace.terminal import printable

_BROKER_HELP = "URL of the broker: `mqtt://HOST:PORT`, or `mqtts://` for TLS."

LogLevelOption = Annotated[
    str | None,
    typer.Option(help="Level of the services' logs: debug, info, warning or error.", show_default="info"),
]
CredentialsFolderOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the credentials of each service, for a secured broker.",
        show_default="those in the state folder, where there are some",
    ),
]
NamedBrokerOption = Annotated[
    str | None, typer.Option("--broker", help=_BROKER_HELP, show_default="mqtt://127.0.0.1:1883")
]
BrokerOption = Annotated[
    str | None,
    typer.Option("--broker", help=_BROKER_HELP, show_default="the one here, or announced in this network"),
]
PrefixOption = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        help="First levels of all topics.",
        show_default="splitplace/v1",
    ),
]
CredentialsOption = Annotated[
    Path | None,
    typer.Option(
        "--credentials",
        help="File with user, password and authority of a secured broker, or a folder with one for each "
        "user.",
        show_default="those of the operator in the state folder, where there are some",
    ),
]

_UNITS_MS = {"": 1.0, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "min": 60_000.0, "h": 3_600_000.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|)\s*")


def parse_duration_ms(text: str, flag: str) -> float:
    """Return a duration in milliseconds: `300`, `300ms`, `2s`, `1.5min`.

    Raises typer.BadParameter, which names the flag.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a duration like 300ms, 2s or 1.5min", param_hint=flag)
    milliseconds = float(match[1]) * _UNITS_MS[match[2]]
    if milliseconds == 0:
        raise typer.BadParameter("a duration must be longer than 0", param_hint=flag)
    return milliseconds


def parse_deadline_ms(text: str) -> float:
    """Return what `--deadline` says, in milliseconds. Raises typer.BadParameter."""
    deadline_ms = parse_duration_ms(text, "--deadline")
    if deadline_ms > MAX_DEADLINE_MS:
        raise typer.BadParameter("at most 24h", param_hint="--deadline")
    return deadline_ms


def settings_from(
    broker: str | None, prefix: str | None, credentials: Path | None = None, **flags: str | None
) -> Settings:
    """Return settings from flags, then variables, then the TOML file; find a broker where none is named.

    Raises ConfigurationError.
    """
    given = {"broker": broker, "prefix": prefix, "credentials": credentials, **flags}
    settings = FindingSettings.load(**{name: value for name, value in given.items() if value is not None})
    return with_broker(settings)


def explain(error: ValidationError) -> str:
    """Return what is wrong with some values, joined to one line."""
    lines = [
        ": ".join(filter(None, (".".join(map(str, each["loc"])), problem_of(each))))
        for each in error.errors()
    ]
    return "; ".join(lines)


def fail(reason: str, code: ExitCode) -> NoReturn:
    """Print the reason on standard error, and exit."""
    print(printable(reason), file=sys.stderr)
    raise typer.Exit(code)


def fit_of(text: str) -> Fit | None:
    """Return what `--fit` says. Raises ConfigurationError."""
    found = next((fit for fit in FITS if fit == text), None)
    if text and found is None:
        raise ConfigurationError(f"--fit is one of {', '.join(FITS)}")
    return found
