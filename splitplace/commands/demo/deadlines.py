"""Tight deadlines in a file, so that two demos send the same tasks with the same deadlines."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from splitplace.commands.demo.workload import TightDeadline
from splitplace.errors import SplitPlaceError
from splitplace.storage.replace import replace_file

_FILE = TypeAdapter(dict[str, TightDeadline | None])


class DeadlinesError(SplitPlaceError):
    """The file of deadlines cannot be used."""


def read_deadlines(file: Path) -> dict[str, TightDeadline | None]:
    """Return the tight deadline of each application. Raises DeadlinesError."""
    try:
        return _FILE.validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise DeadlinesError(f"--deadlines: {file} is not a file that a demo has written: {error}") from None


def write_deadlines(file: Path, deadlines: Mapping[str, TightDeadline | None]) -> None:
    """Write the tight deadline of each application. Raises OSError."""
    content = _FILE.dump_python(dict(deadlines), mode="json")
    replace_file(file, f"{json.dumps(content, indent=2)}\n".encode())
