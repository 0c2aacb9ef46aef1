"""Run the demo and draw what its three acts say as a picture for the README.

python -m benchmarks.demo_picture --tasks 60

Writes `docs/pictures/demo.svg`, which loads nothing from elsewhere, and prints the text that it shows.
`--text FILE` draws the output of an earlier run instead.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

_COLUMNS = 92
_PROGRESS = re.compile(r"^\s*\d+ s  ")
_FONT_FACES = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_FIRST, _LAST = "Act 1", "And small networks?"


def main() -> None:
    """Draw the acts."""
    parser = argparse.ArgumentParser(description="Draw what the demo says.")
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", type=Path, help="output of an earlier run")
    parser.add_argument("--file", type=Path, default=Path("docs/pictures/demo.svg"))
    arguments = parser.parse_args()
    if arguments.text:
        output = arguments.text.read_text(encoding="utf-8")
    else:
        command = [sys.executable, "-m", "splitplace", "demo"]
        flags = ["--tasks", str(arguments.tasks), "--seed", str(arguments.seed)]
        environment = {**os.environ, "COLUMNS": str(_COLUMNS)}
        done = subprocess.run(  # noqa: S603 - our own command
            [*command, *flags], capture_output=True, text=True, check=True, env=environment
        )
        output = done.stdout
    picture = drawn(acts(output))
    arguments.file.write_text(picture, encoding="utf-8")


def acts(output: str) -> list[str]:
    """Return the lines of the three acts, without progress."""
    lines = [line.rstrip() for line in output.splitlines() if not _PROGRESS.match(line)]
    first = next(number for number, line in enumerate(lines) if line.startswith(_FIRST))
    last = next((number for number, line in enumerate(lines) if line.startswith(_LAST)), len(lines))
    return lines[first:last]


def drawn(lines: list[str]) -> str:
    """Return the lines as an SVG of a terminal, in a font that the reader has."""
    console = Console(record=True, width=_COLUMNS)
    for line in lines:
        console.print(Text(line, style="bold" if line.startswith("Act ") else ""))
    picture = console.export_svg(title="make demo")
    return _FONT_FACES.sub("", picture).replace("Fira Code", "ui-monospace, DejaVu Sans Mono")


if __name__ == "__main__":
    main()
