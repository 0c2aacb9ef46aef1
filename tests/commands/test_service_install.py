"""`splitplace service`: which files it writes, which programs it runs, and when it refuses."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path, PurePosixPath

import pytest

from splitplace.commands.service.command import why_not
from splitplace.commands.service.steps import Place, Run, Write, installing, perform, uninstalling
from splitplace.commands.service.units import UNITS, Part, Target, adapted, shipped_unit, trouble_with
from splitplace.errors import SplitPlaceError

PROGRAM = PurePosixPath("/opt/thing/bin/splitplace")
HOMES, ROOTS_HOME = "/home", "/root"
PARTS = pytest.mark.parametrize("part", UNITS)


class Manager:
    """Takes the place of systemd: notes what it is told, and fails where a test wants it to."""

    def __init__(self, *failing: str) -> None:
        self.told: list[str] = []
        self._failing = failing

    def __call__(self, command: Sequence[str]) -> int:
        line = " ".join(command)
        self.told.append(line)
        return int(any(each in line for each in self._failing))


@pytest.fixture
def system(tmp_path: Path) -> Place:
    return Place(tmp_path / "root", tmp_path / "home", is_for_user=False)


@pytest.fixture
def own(tmp_path: Path) -> Place:
    return Place(tmp_path / "root", tmp_path / "home", is_for_user=True)


def parsed(text: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


@PARTS
def test_a_part_is_written_enabled_and_started(part: Part, system: Place) -> None:
    manager = Manager("id --user")
    perform(installing(part, Target(PROGRAM), system), manager)
    unit = system.root / "etc/systemd/system" / UNITS[part]
    assert f"ExecStart={PROGRAM} {part}\n" in unit.read_text()
    control = [each for each in manager.told if each.startswith("systemctl")]
    assert control == [
        "systemctl daemon-reload",
        f"systemctl enable {UNITS[part]}",
        f"systemctl {'--no-block ' if part == 'node' else ''}restart {UNITS[part]}",
    ]
    makes_account = any(each.startswith("useradd --system") for each in manager.told)
    assert makes_account is ("User=splitplace" in unit.read_text())


def test_an_account_that_is_there_is_not_made_again(system: Place) -> None:
    manager = Manager()
    perform(installing("up", Target(PROGRAM), system), manager)
    assert not any("useradd" in each for each in manager.told)


def test_settings_of_a_node_are_kept(system: Place) -> None:
    perform(installing("node", Target(PROGRAM), system, 'broker = "mqtt://hub"\n'), Manager())
    perform(installing("node", Target(PROGRAM), system), Manager())
    assert (system.root / "etc/splitplace/node.toml").read_text() == 'broker = "mqtt://hub"\n'
    assert [each.name for each in (system.root / "etc/splitplace").iterdir()] == ["node.toml"]


@PARTS
def test_the_packaged_unit_is_the_shipped_one_to_the_letter(part: Part) -> None:
    packaged = Target(PurePosixPath("/opt/splitplace/bin/splitplace"))
    assert adapted(shipped_unit(part), packaged) == shipped_unit(part)


@PARTS
def test_a_users_unit_asks_for_nothing_that_needs_root(part: Part, own: Place) -> None:
    perform(installing(part, Target(PROGRAM, is_for_user=True), own), Manager())
    text = (own.home / ".config/systemd/user" / UNITS[part]).read_text()
    service = parsed(text)["Service"]
    refused = {
        "User",
        "DynamicUser",
        "CapabilityBoundingSet",
        "ProtectSystem",
        "StateDirectory",
        "PrivateTmp",
    }
    assert not refused & set(service)
    assert service["Type"] == "notify"
    assert service["NoNewPrivileges"] == "yes"
    assert parsed(text)["Install"]["WantedBy"] == "default.target"
    assert "/etc/" not in text
    assert "network-online" not in text


@PARTS
def test_what_is_removed_leaves_no_unit_and_keeps_settings(part: Part, system: Place) -> None:
    perform(installing(part, Target(PROGRAM), system), Manager())
    manager = Manager()
    perform(uninstalling(part, system), manager)
    assert manager.told == [f"systemctl disable --now {UNITS[part]}", "systemctl daemon-reload"]
    assert list((system.root / "etc/systemd/system").iterdir()) == []
    assert (system.root / "etc/splitplace/node.toml").exists() is (part == "node")


def test_a_step_that_fails_ends_the_rest_and_is_named(system: Place) -> None:
    manager = Manager("enable")
    with pytest.raises(SplitPlaceError, match=r"systemctl enable splitplace-node\.service .* exit code 1"):
        perform(installing("node", Target(PROGRAM), system), manager)
    assert not any("restart" in each for each in manager.told)


def test_a_file_that_cannot_be_written_is_named(system: Place) -> None:
    (system.root / "etc").mkdir(parents=True)
    (system.root / "etc" / "splitplace").write_text("a file where a folder belongs")
    with pytest.raises(SplitPlaceError, match=r"could not write .*node\.toml"):
        perform(installing("node", Target(PROGRAM), system), Manager())


@pytest.mark.parametrize(
    ("program", "is_for_user", "is_fine"),
    [
        ("/opt/splitplace/bin/splitplace", False, True),
        (f"{HOMES}/ann/.local/bin/splitplace", False, False),
        (f"{ROOTS_HOME}/.local/bin/splitplace", False, False),
        (f"{HOMES}/ann/.local/bin/splitplace", True, True),
        ("/opt/my things/bin/splitplace", True, False),
        ("/opt/100%/bin/splitplace", False, False),
    ],
)
def test_a_program_that_the_manager_cannot_run_is_refused(
    program: str, *, is_for_user: bool, is_fine: bool
) -> None:
    trouble = trouble_with(Target(PurePosixPath(program), is_for_user=is_for_user))
    assert (trouble is None) is is_fine
    assert is_fine or program in str(trouble)


def test_where_systemd_does_not_run_it_says_what_to_do_instead(system: Place) -> None:
    """The root folder of a container: no manager has put its mark there."""
    reason = why_not(system)
    assert reason is not None
    assert "systemd does not run here" in reason
    assert "splitplace node" in reason


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "splitplace", "service", *arguments]
    environment = os.environ | {"HOME": str(home), "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_dry_run_shows_every_step_and_does_nothing(tmp_path: Path) -> None:
    done = run("install", "node", "--user", "--dry-run", "--broker", "mqtt://hub", home=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"^(?:write|systemctl) .*", done.stdout, re.MULTILINE)
    assert len(shown) == 5
    assert 'broker = "mqtt://hub"' in done.stdout
    assert "ExecStart=" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("install", "gateway", "--dry-run"), 2, "no part to install"),
        (("install", "up", "--user", "--dry-run", "--broker", "mqtt://hub"), 2, "is for a node"),
        (("install", "node", "--user", "--dry-run", "--broker", "hub"), 2, "no address of a broker"),
        (("uninstall", "node", "--user"), 1, "nothing to remove"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, arguments: Sequence[str], code: int, said: str
) -> None:
    done = run(*arguments, home=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("is_for_user", [False, True], ids=["system", "user"])
@PARTS
def test_systemd_finds_nothing_wrong_with_a_unit(part: Part, tmp_path: Path, *, is_for_user: bool) -> None:
    """With a program that exists, since a missing one is an error."""
    analyze = shutil.which("systemd-analyze")
    assert analyze, "no systemd-analyze: apt-get install systemd"
    program = tmp_path / "splitplace"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    steps = installing(
        part,
        Target(PurePosixPath(program), is_for_user=is_for_user),
        Place(tmp_path, tmp_path, is_for_user=is_for_user),
    )
    (unit,) = (each for each in steps if isinstance(each, Write) and each.path.suffix == ".service")
    perform([unit], Manager())
    command = [analyze, "verify", "--man=no", *(["--user"] if is_for_user else []), str(unit.path)]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    about_ours = [line for line in done.stderr.splitlines() if UNITS[part] in line]
    assert (about_ours, done.returncode) == ([], 0), done.stderr


def test_nothing_waits_until_a_node_has_found_its_broker() -> None:
    """With default dependencies, multi-user.target would be reached after it, or never."""
    lines = shipped_unit("node").splitlines()
    assert {"DefaultDependencies=no", "Requires=sysinit.target", "Before=shutdown.target"} <= set(lines)
    assert "TimeoutStartSec=infinity" in lines
    assert "sysinit.target" not in adapted(shipped_unit("node"), Target(PROGRAM, is_for_user=True))


def test_systemd_is_what_tells_a_broken_unit(tmp_path: Path) -> None:
    """The control of the test above."""
    unit = tmp_path / UNITS["node"]
    unit.write_text(shipped_unit("node").replace("Restart=always", "Restart=perhaps"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert "perhaps" in done.stderr


def test_steps_read_as_commands_that_one_could_type(system: Place) -> None:
    shown = [str(each) for each in installing("up", Target(PROGRAM), system) if isinstance(each, Run)]
    assert shown[0].startswith("useradd --system --home-dir /var/lib/splitplace-services")
    assert shown[-1] == "systemctl restart splitplace-services.service"
