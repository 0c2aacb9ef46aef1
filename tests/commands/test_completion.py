"""The shell completes commands, subcommands and options, although all are imported late."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from splitplace.commands.main import COMMANDS

BASH = shutil.which("bash") or "bash"


def words(line: str) -> list[str]:
    """What `splitplace` offers bash for the last word of a line."""
    given = line.split(" ")
    shown = subprocess.run(
        [sys.executable, "-c", "from splitplace.commands.main import main; main()"],
        env=os.environ
        | {
            "_SPLITPLACE_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(given) - 1),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.stderr == ""
    return shown.stdout.split()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("splitplace st", ["status"]),
        ("splitplace models in", ["inspect"]),
        ("splitplace node --memory", ["--memory-budget-mb"]),
        ("splitplace status --js", ["--json"]),
        ("splitplace node --codec z", ["zstd"]),
        ("splitplace models list --sto", ["--store"]),
    ],
)
def test_a_word_that_was_begun_is_completed(line: str, wanted: list[str]) -> None:
    assert words(line) == wanted


def test_all_commands_are_offered() -> None:
    assert words("splitplace ") == list(COMMANDS)


def test_bash_completes_with_the_script_that_the_command_prints(tmp_path: Path) -> None:
    command = tmp_path / "splitplace"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m splitplace "$@"\n')
    command.chmod(0o755)
    program = """
eval "$(splitplace --show-completion bash)"
COMP_WORDS=(splitplace res)
COMP_CWORD=1
_splitplace_completion splitplace
printf '%s\\n' "${COMPREPLY[@]}"
"""
    shown = subprocess.run(
        [BASH, "-c", program],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert sorted(shown.stdout.split()) == ["resource-monitor", "restore", "result-aggregator"]
