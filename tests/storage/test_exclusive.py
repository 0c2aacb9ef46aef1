"""A lock that one process holds at a time and that no crash leaves behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from splitplace.storage.exclusive import exclusive

HOLD = """
import sys, time
from pathlib import Path
from splitplace.storage.exclusive import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_by_one_and_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with exclusive(tmp_path / "lock"), pytest.raises(BlockingIOError):
            exclusive(tmp_path / "lock").__enter__()


def test_a_lock_whose_holder_was_killed_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            exclusive(lock).__enter__()
        holder.kill()
    with exclusive(lock):
        pass
