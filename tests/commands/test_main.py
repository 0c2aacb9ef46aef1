"""The command finds the part that is meant, and loads only that."""

import subprocess
import sys
from importlib import import_module

import pytest
import typer

from splitplace.commands.main import COMMANDS, PARTS, TOOLS, main

LOADED = """
import sys
from splitplace.commands.main import main
try:
    main(["--help"])
except SystemExit:
    pass
print([name for name in ("numpy", "pydantic", "aiomqtt", "torch", "onnxruntime") if name in sys.modules])
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "splitplace.commands.main", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_every_part_and_command() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert [name for name in (*PARTS, *TOOLS, *COMMANDS) if name not in shown.stdout] == []


def test_help_loads_nothing_heavy() -> None:
    shown = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_of_a_command_is_the_first_line_of_its_help(name: str) -> None:
    module, summary = COMMANDS[name]
    assert (import_module(module).command.__doc__ or "").splitlines()[0] == summary


@pytest.mark.parametrize("name", PARTS)
def test_a_part_shows_its_own_help(name: str) -> None:
    shown = run(name, "--help")
    assert shown.returncode == 0
    assert f"splitplace {name}" in shown.stdout
    assert "--broker" in shown.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_its_help(name: str) -> None:
    shown = run(name, "--help")
    assert (shown.returncode, COMMANDS[name][1] in " ".join(shown.stdout.split())) == (0, True)


def test_a_part_gets_the_rest_of_the_command_line_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    module = import_module(PARTS["node"][0])
    monkeypatch.setattr(module, "main", given.append)
    main(["node", "--node", "n1", "--", "--help"])
    assert given == [["--node", "n1", "--", "--help"]]


def test_an_unknown_command_is_a_usage_error() -> None:
    shown = run("frobnicate")
    assert shown.returncode == 2
    assert "frobnicate" in shown.stderr


@pytest.mark.parametrize("part", ["gateway", "node", "up", "status"])
def test_wrong_settings_are_a_usage_error_in_one_line(part: str) -> None:
    shown = run(part, "--broker", "http://example")
    assert shown.returncode == 2
    assert "broker: Value error, 'http://example' is not a broker URL" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_a_command_that_was_not_loaded_cannot_run() -> None:
    """An option before the command would make the wrong one run, if anything."""
    with pytest.raises((SystemExit, typer.Exit)):
        main(["--no-such-option", "status"])
