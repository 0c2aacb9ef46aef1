"""The commands of the README, typed as they stand there into an empty state folder, make a secured system."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from splitplace.commands.processes.broker import free_port
from splitplace.commands.processes.children import Processes
from tests.support.waiting import block_until
from tests.support.whole_system import START_S

pytestmark = [pytest.mark.mosquitto, pytest.mark.system, pytest.mark.serial]

ROOT = Path(__file__).parents[2]
PICTURE = str(ROOT / "examples" / "images" / "digit-7-3.png")


def typed() -> list[list[str]]:
    """The commands of the block about securing, without their comments."""
    text = (ROOT / "README.md").read_text("utf-8")
    (block,) = [block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "secure init" in block]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def run(folder: Path, *words: str) -> str:
    """Run a command to its end in a state folder; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *words, "--state-dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def started(folder: Path, processes: Processes, name: str, *words: str) -> Iterator[None]:
    processes.start(name, [sys.executable, "-m", "splitplace", *words, "--state-dir", str(folder)])
    yield
    assert processes.children[name].pid is not None, processes.children[name].last_lines()


def test_the_commands_of_the_readme_make_a_secured_system(tmp_path: Path) -> None:
    init, add_node, add_sensor = typed()
    hub, devices = tmp_path / "hub", [tmp_path / "device-1", tmp_path / "device-2"]
    port = free_port()
    run(hub, *init, "--port", str(port), "--host", "127.0.0.1")  # beside other tests
    with (
        Processes(tmp_path / "logs") as processes,
        started(hub, processes, "broker", "broker", "--host", "127.0.0.1"),
    ):
        block_until(lambda: "mosquitto broker on mqtts" in processes.children["broker"].log_file.read_text())
        with started(hub, processes, "up", "up"):
            for device, name in zip(devices, ("kitchen", "cellar"), strict=True):
                shown = run(hub, *add_node[:-1], name)
                program, *words = shlex.split(shown)
                assert program == "splitplace"
                processes.start(name, [sys.executable, "-m", program, *words, "--state-dir", str(device)])
            shown = run(hub, *add_sensor)
            file = shown.strip().rpartition(" ")[2]

            def is_answered() -> bool:
                answer = subprocess.run(
                    [
                        *(sys.executable, "-m", "splitplace", "submit", PICTURE, "--app", "mnist"),
                        *("--deadline", "5s", "--credentials", file, "--json"),
                    ],
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                return '"label": "7"' in answer.stdout

            block_until(is_answered, START_S)
            status = subprocess.run(
                [sys.executable, "-m", "splitplace", "status"],
                env={"SPLITPLACE_STATE_DIR": str(hub), "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert "kitchen" in status.stdout
            assert "cellar" in status.stdout
