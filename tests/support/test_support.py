"""What keeps parallel tests apart, and what finds the leftovers of tests, work."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.support import leaks
from tests.support.alone import turn
from tests.support.waiting import block_until


def test_turns_overlap_unless_one_is_to_be_alone(tmp_path: Path) -> None:
    entered: list[str] = []

    def take(name: str, *, alone: bool) -> None:
        with turn(tmp_path, alone=alone):
            entered.append(name)

    with turn(tmp_path, alone=False):
        take("another", alone=False)
        alone = threading.Thread(target=take, args=("alone",), kwargs={"alone": True})
        alone.start()
        block_until(lambda: not _is_free(tmp_path / "turnstile"))
        later = threading.Thread(target=take, args=("later",), kwargs={"alone": False})
        later.start()
        assert entered == ["another"]
    alone.join()
    later.join()
    assert entered == ["another", "alone", "later"]


def _is_free(file: Path) -> bool:
    program = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    ended = subprocess.run([sys.executable, "-c", program, str(file)], check=False, capture_output=True)
    return ended.returncode == 0


def test_a_process_that_is_left_behind_is_told_with_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "_GRACE_S", 0.0)
    before = psutil.Process().children()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        block_until(lambda: "input()" in psutil.Process(process.pid).cmdline())
        (told,) = leaks.left_processes(before)
        assert os.environ["PYTEST_CURRENT_TEST"].split(" ")[0] in told
    finally:
        process.communicate(b"\n")
    assert leaks.left_processes(before) == []


def test_a_thread_that_is_left_behind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "_GRACE_S", 0.0)
    before, end = threading.enumerate(), threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    thread.start()
    assert leaks.left_threads(before) == ["thread forgotten"]
    end.set()
    thread.join()
    assert leaks.left_threads(before) == []
