"""The wheel: what is in it, and that every command works where nothing else of the repository is."""

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from splitplace.commands.processes.broker import free_port
from splitplace.messages.topics import SERVICES
from tests.support.waiting import block_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "examples" / "images" / "digit-7-3.png"
HANG_S = 1200.0
"""What only a hang exceeds. A demo ends by itself: its waits are bounded, and every task has a deadline."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as a package index would get it.

    `make release` names the one that it has built, so that exactly what is published is tested.
    """
    if released := os.environ.get("SPLITPLACE_WHEEL"):
        return Path(released)
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=HANG_S)
    (built,) = folder.glob("*.whl")
    return built


def recorded(wheel: Path) -> list[str]:
    """Every path that the wheel's RECORD names."""
    with zipfile.ZipFile(wheel) as archive:
        (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        return [row[0] for row in csv.reader(archive.read(record).decode().splitlines())]


def test_the_wheel_puts_one_package_and_its_metadata_into_site_packages(wheel: Path) -> None:
    paths = recorded(wheel)
    version = wheel.name.split("-")[1]
    assert {path.partition("/")[0] for path in paths} == {"splitplace", f"splitplace-{version}.dist-info"}
    assert len(set(paths)) == len(paths)


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    """Links of the checkout are followed: the wheel has real files in their place."""
    package = ROOT / "splitplace"
    expected = {
        f"splitplace/{Path(folder).relative_to(package) / name}"
        for folder, _, names in os.walk(package, followlinks=True)
        for name in names
        if "__pycache__" not in Path(folder).parts
    }
    assert {path for path in recorded(wheel) if path.startswith("splitplace/")} == {
        path.replace("/./", "/") for path in expected
    }


def test_a_wheel_built_without_the_source_distribution_is_the_same(wheel: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=HANG_S)
    (direct,) = tmp_path.glob("*.whl")
    assert recorded(direct) == recorded(wheel)


@dataclass(frozen=True, slots=True)
class Installation:
    """A fresh environment with the wheel, a home and an empty current folder."""

    environment: Path
    home: Path
    here: Path

    @property
    def variables(self) -> dict[str, str]:
        """Those of this process without what leads to the checkout, to its tests or to the user's files."""
        ours = ("SPLITPLACE_", "PYTHON", "XDG_", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**kept, "HOME": str(self.home), "COLUMNS": "200"}

    @property
    def python(self) -> str:
        """The interpreter."""
        return str(self.environment / "bin" / "python")

    @property
    def state(self) -> Path:
        """Where state is kept by default on Linux."""
        return self.home / ".local" / "state" / "splitplace"

    def run(self, *arguments: str, code: int | None = 0) -> str:
        """Run `splitplace` to its end in the empty folder; what it printed."""
        program = str(self.environment / "bin" / "splitplace")
        return self.run_program(program, *arguments, code=code)

    def run_program(self, *command: str, code: int | None = 0) -> str:
        """Run a program to its end in the empty folder; what it printed. `code` None: any will do."""
        ended = subprocess.run(
            command,
            cwd=self.here,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        assert code in {ended.returncode, None}, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `splitplace` meanwhile; Ctrl-C ends it."""
        command = [str(self.environment / "bin" / "splitplace"), *arguments]
        log = self.home / f"{arguments[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self.here, env=self.variables, stdout=output, stderr=output
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The wheel alone is installed; what it needs is seen in the environment of the tests.

    A `.pth` file shows that environment's packages, but not what its own `.pth` files show: an editable
    installation of the checkout stays out of sight.
    """
    root = tmp_path_factory.mktemp("installed")
    environment, home, here = root / "environment", root / "home", root / "empty"
    for folder in (home, here):
        folder.mkdir()
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=HANG_S
    )
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (site_packages / "tests.pth").write_text(sysconfig.get_path("purelib"))
    installation = Installation(environment, home, here)
    pip = [sys.executable, "-m", "pip", "--python", installation.python, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, timeout=HANG_S)
    yield installation
    assert list(here.iterdir()) == []
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(autouse=True)
def _nothing_is_written_here(installed: Installation) -> Iterator[None]:
    yield
    assert list(installed.here.iterdir()) == []


def test_the_installed_package_is_the_one_that_runs(installed: Installation) -> None:
    shown = installed.run_program(installed.python, "-c", "import splitplace; print(splitplace.__file__)")
    assert Path(shown.strip()).is_relative_to(installed.environment)
    as_module = installed.run_program(installed.python, "-m", "splitplace", "--version")
    assert as_module == installed.run("--version")


def test_shipped_networks_are_there_and_stay_there(installed: Installation) -> None:
    shown = installed.run("models", "list")
    names = ("mnist", "fashionmnist", "cifar100", "resnet50", str(installed.environment))
    assert all(name in shown for name in names)
    assert str(installed.home / ".local" / "share" / "splitplace" / "store") in shown
    assert "comes with SplitPlace" in installed.run("models", "remove", "mnist", "--yes", code=1)


def test_simulator_and_experiments_work(installed: Installation) -> None:
    assert "answered" in installed.run("simulate", "--hosts", "4", "--intervals", "2")
    assert "answered" in installed.run("simulate", "--profile", "store", "--hosts", "4", "--intervals", "2")
    assert "table4" in installed.run("experiments", "list")


def test_a_system_is_started_part_by_part_and_answers(installed: Installation) -> None:
    port = str(free_port())
    where = ("--broker", f"mqtt://127.0.0.1:{port}")
    with (
        installed.running("broker", "--port", port),
        installed.running("up", *where),
        installed.running("node", "--node", "one", *where),
    ):
        block_until(lambda: _all_online(installed.run("status", *where, code=None)), HANG_S)
        answer = installed.run("submit", str(PICTURE), "--app", "mnist", "--deadline", "60s", *where)
        assert "decision" in answer
        found = installed.run("doctor", *where)
        assert "fail" not in found
    kept = {path.name for path in installed.state.iterdir()}
    assert {"gateway.sqlite3", "broker", "log", "fragments"} <= kept
    assert list((installed.state / "fragments" / "one").glob("files/*"))


def test_a_demo_runs_and_leaves_nothing(installed: Installation) -> None:
    shown = installed.run("demo", "--tasks", "6", "--summary", str(installed.home / "figures.json"))
    assert "deadline hit rate" in shown
    assert list((installed.state / "demo").iterdir()) == []


def _all_online(status: str) -> bool:
    return all(name in status for name in (*SERVICES, "one")) and "offline" not in status
