"""Children are watched, restarted where that is wanted, and never left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from splitplace.commands.processes.children import Death, Processes
from tests.support.waiting import block_until

REPOSITORY = Path(__file__).parents[2]
SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
IGNORE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)"
STUBBORN = [sys.executable, "-c", f"{IGNORE}; time.sleep(60)"]


def one_death(processes: Processes) -> Death:
    found: list[Death] = []

    def died() -> bool:
        found.extend(processes.check())
        return bool(found)

    block_until(died)
    (death,) = found
    return death


def test_a_childs_output_goes_to_its_log(tmp_path: Path) -> None:
    with Processes(tmp_path / "log") as processes:
        child = processes.start("talker", [sys.executable, "-c", "print('hello')"])
        block_until(lambda: child.code is not None)
    assert (tmp_path / "log" / "talker.log").read_text() == "hello\n"


def test_a_death_is_reported_once_with_the_last_lines(tmp_path: Path) -> None:
    program = "import sys; print('first'); print('what went wrong'); sys.exit(3)"
    with Processes(tmp_path) as processes:
        processes.start("victim", [sys.executable, "-c", program])
        death = one_death(processes)
        assert (death.name, death.code, death.last_lines) == ("victim", 3, ("first", "what went wrong"))
        assert "exit code 3" in str(death)
        assert processes.check() == []


def test_a_killed_child_names_the_signal(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("victim", SLEEP)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        assert "signal 9" in str(one_death(processes))


def test_a_child_that_is_to_be_restarted_is(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("phoenix", SLEEP, restart=True)
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        one_death(processes)
        block_until(lambda: processes.check() == [] and child.pid is not None)
        assert child.pid != first


def test_stopping_ends_everybody_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitplace.commands.processes.children.STOP_S", 300.0)
    with Processes(tmp_path) as processes:
        pids = [processes.start(name, SLEEP).pid for name in ("one", "two", "three")]
        block_until(lambda: all("up" in child.last_lines() for child in processes.children.values()))
        started = time.monotonic()
    assert time.monotonic() - started < 100.0  # nobody had to be killed
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)


def test_a_child_that_ignores_the_request_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitplace.commands.processes.children.STOP_S", 0.3)
    with Processes(tmp_path) as processes:
        child = processes.start("stubborn", STUBBORN)
        pid = child.pid
        block_until(lambda: "up" in child.last_lines())
    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_ctrl_c_reaches_only_the_parent(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("apart", SLEEP)
        assert child.pid is not None
        assert os.getpgid(child.pid) == child.pid != os.getpgrp()


def test_a_missing_command_is_an_error(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes, pytest.raises(FileNotFoundError):
        processes.start("ghost", ["no-such-command-anywhere"])


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from splitplace.commands.processes.children import Processes\n"
        "processes = Processes(Path(sys.argv[1]))\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "children = [processes.start(name, sleep) for name in ('one', 'two')]\n"
        "print(*(child.pid for child in children), flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    try:
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
    finally:
        parent.kill()
        parent.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
