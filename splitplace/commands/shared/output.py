"""What commands print: JSON for programs, text that is safe on a terminal for people."""

import json
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python
from rich.text import Text

from splitplace.terminal import printable

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON (see docs/commands.md).")]


def print_json(value: Any, *, indent: int | None = 2) -> None:  # noqa: ANN401 - whatever pydantic can write
    """Print a message, a dataclass, or lists and dictionaries of them. `indent=None` makes it one line.

    NaN and infinity become null. All beyond ASCII is escaped: nothing in it can steer a terminal.
    """
    print(json.dumps(to_jsonable_python(value, inf_nan_mode="null"), indent=indent), flush=True)


def cell(text: str, style: str = "") -> Text:
    """Return text from outside for a table: no markup, no control characters."""
    return Text(printable(text), style)
