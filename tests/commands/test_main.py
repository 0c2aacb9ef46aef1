"""The command finds the subcommand that is meant, and imports only that."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from splitplace.commands.main import COMMANDS
from splitplace.commands.models.command import COMMANDS as MODELS
from splitplace.commands.secure.command import COMMANDS as SECURE
from splitplace.commands.shared.lazy_group import LazyCommand, load
from splitplace.errors import MissingExtraError
from tests.support.commands import exit_code

LOADED = """
import sys
from splitplace.commands.main import main
try:
    main(["--help"])
except SystemExit:
    pass
print([name for name in ("numpy", "pydantic", "aiomqtt", "torch", "onnxruntime") if name in sys.modules])
"""
PARTS = [name for name, lazy in COMMANDS.items() if lazy.panel == "Parts"]
GROUPS = {"models": MODELS, "secure": SECURE}
ALL = [(name,) for name in COMMANDS] + [(group, name) for group, within in GROUPS.items() for name in within]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "splitplace", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lazy(name: tuple[str, ...]) -> LazyCommand:
    return COMMANDS[name[0]] if len(name) == 1 else GROUPS[name[0]][name[1]]


def test_help_lists_every_command() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert [name for name in COMMANDS if name not in shown.stdout] == []


def test_help_loads_nothing_heavy() -> None:
    shown = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ALL, ids=" ".join)
def test_the_summary_in_the_list_is_the_first_line_of_the_help(name: tuple[str, ...]) -> None:
    command = load(" ".join(name), lazy(name))
    assert command.help.splitlines()[0] == lazy(name).summary


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_an_option_for_every_setting_it_shares_with_the_others(name: str) -> None:
    shown = run(name, "--help")
    assert shown.returncode == 0
    assert f"splitplace {name}" in shown.stdout
    assert "--broker" in shown.stdout
    assert "default factory" not in shown.stdout
    assert "SecretStr" not in shown.stdout


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_also_a_module(name: str) -> None:
    module = import_module(COMMANDS[name].target.partition(":")[0]).__name__.removesuffix(".__main__")
    shown = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (shown.returncode, f"Usage: splitplace {name} " in shown.stdout) == (0, True)


def test_help_does_not_break_sentences_where_the_source_breaks_lines() -> None:
    shown = run("up", "--help")
    lines = [line.strip() for line in shown.stdout.splitlines()]
    start = next(index for index, line in enumerate(lines) if line.startswith("They share"))
    assert len(lines[start]) > 65


def test_every_command_that_prints_json_stands_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text("utf-8")
    documented = {tuple(row.split()) for row in re.findall(r"^\| `([\w ]+) --json`", page, re.MULTILINE)}
    documented = {row[:1] if row[0] not in GROUPS else row for row in documented}
    commands = {name: load(" ".join(name), lazy(name)) for name in ALL}
    with_json = {
        name
        for name, command in commands.items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert documented == with_json


def test_an_unknown_command_is_a_usage_error_with_a_suggestion() -> None:
    shown = run("statos")
    assert shown.returncode == 2
    assert "No such command 'statos'. Did you mean 'status'" in shown.stderr


@pytest.mark.parametrize("name", ALL, ids=" ".join)
def test_an_unknown_option_is_a_usage_error(
    name: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*name, "--no-such-option") == 2
    assert "No such option: --no-such-option" in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_a_command_says_which_extra_it_needs() -> None:
    command = LazyCommand("Do something.", "no_such_package:command", extra="edge")
    with pytest.raises(MissingExtraError, match=r"needs no_such_package: .*the extra 'edge'"):
        load("node", command)


def test_a_module_of_ours_that_is_missing_is_a_fault_of_ours() -> None:
    with pytest.raises(ModuleNotFoundError):
        load("node", LazyCommand("Do something.", "splitplace.nothing:command", extra="edge"))


@pytest.mark.parametrize(
    ("largest", "said"), [(2**31 - 1, "64-bit Raspberry Pi OS"), (2**63 - 1, "the extra 'edge'")]
)
def test_on_a_32_bit_system_a_node_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, largest: int, said: str
) -> None:
    monkeypatch.setattr("sys.maxsize", largest)
    assert said in str(MissingExtraError("splitplace node", "onnxruntime", "edge"))
