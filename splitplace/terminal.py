"""Where the program meets its user: run a command, end it with a sentence, print what came from outside."""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

import typer

from splitplace.errors import SplitPlaceError

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and newline, and those that change the direction of writing."""


_REASONS: Final[Mapping[type[OSError], str]] = {
    FileExistsError: "is not a folder",
    PermissionError: "permission denied; for state, name another folder with --state-dir",
}


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
    try:
        typer.main.get_command(app).main(
            args=list(sys.argv[1:] if arguments is None else arguments), prog_name=program
        )
    except SplitPlaceError as error:
        sys.stderr.write(f"{printable(str(error))}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        reason = _REASONS.get(type(error), error.strerror or "cannot be used")
        sys.stderr.write(f"{printable(str(error.filename))}: {reason}\n")
        sys.exit(SplitPlaceError.exit_code)
    sys.exit(0)
