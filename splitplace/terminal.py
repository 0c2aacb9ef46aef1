"""Where the program meets its user: run a command, end it with a sentence, print what came from outside."""

import errno
import os
import re
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NoReturn

import typer

from splitplace.errors import ConfigurationError, SplitPlaceError

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and newline, and those that change the direction of writing."""


_REASONS: Final[Mapping[type[OSError], str]] = {
    FileExistsError: "is not a folder",
    PermissionError: "permission denied; for state, name another folder with --state-dir",
}

INTERRUPTED: Final = 130
"""How a command ends after Ctrl-C, as shells count it: 128 and the number of the signal."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def printable(text: str) -> str:
    r"""Return the text with control characters written as escapes, such as `\x1b`.

    Whatever comes over the network or out of a file may hold sequences that a terminal obeys.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def run(app: typer.Typer, program: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit. An error that the user can act on is printed without a traceback.

    Args:
        app: the command.
        program: what its help calls it.
        arguments: default to those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal of another alphabet cannot show is a `?`
    try:
        _check_paths(command, given)
        try:
            command.main(args=given, prog_name=program)
        finally:
            sys.stdout.flush()  # while an error of it can still be told
    except SplitPlaceError as error:
        sys.stderr.write(f"{printable(str(error))}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before the command itself began; typer ends one that runs alike
        sys.exit(INTERRUPTED)
    except OSError as error:
        _explain(error)
        sys.exit(SplitPlaceError.exit_code)
    sys.exit(0)


def _explain(error: OSError) -> None:
    """Print what is wrong with a file, a full disk or the output's reader. Raises any other error again."""
    if error.filename is not None:
        reason = _REASONS.get(type(error), error.strerror or "cannot be used")
        sys.stderr.write(f"{printable(str(error.filename))}: {reason}\n")
        return
    if error.errno in _FULL:
        sys.stderr.write("the disk is full: make room, or write to another one\n")
    elif not isinstance(error, BrokenPipeError):
        raise error
    # What is still to be written to it would fail again when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_paths(command: Any, arguments: Sequence[str]) -> None:  # noqa: ANN401 - a click command
    """Raise ConfigurationError for an empty path, which would mean the current folder."""
    empty = [flag for flag, value in pairwise(arguments) if flag.startswith("--") and not value]
    empty += [argument[:-1] for argument in arguments if argument.startswith("--") and argument.endswith("=")]
    if not empty:
        return
    for argument in arguments:
        if argument in getattr(command, "commands", {}):
            _, command, _ = command.resolve_command(typer.Context(command), [argument])
    context = typer.Context(command)
    for parameter in command.params:
        flag = next((flag for flag in empty if flag in parameter.opts), None)
        if flag is not None and _is_path(parameter, context):
            raise ConfigurationError(f"{flag}: it is empty; name a folder or file, or leave it out")


def _is_path(parameter: Any, context: typer.Context) -> bool:  # noqa: ANN401 - a click parameter
    try:
        return isinstance(parameter.process_value(context, ""), Path)
    except Exception:  # noqa: BLE001 - no number, say: the command itself tells the user
        return False
