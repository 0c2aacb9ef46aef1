"""What tests leave behind: processes and threads.

Unclosed files and sockets need no look: they raise ResourceWarning, and warnings are errors here.
"""

import threading
from collections.abc import Iterable

import psutil

_KEPT = ("multiprocessing.resource_tracker", "loky.backend.resource_tracker")
"""Parts of command lines: helpers that Python starts once for a process and ends with it."""
_GRACE_S = 5.0
_STARTED_BY = "PYTEST_CURRENT_TEST"
"""Pytest sets it for each test, and children inherit it."""


def left_processes(before: Iterable[psutil.Process]) -> list[str]:
    """Children of this process that were not among `before`, with the test that started each."""
    known = set(before)
    children = [child for child in psutil.Process().children(recursive=True) if child not in known]
    _, alive = psutil.wait_procs([child for child in children if not _kept(child)], timeout=_GRACE_S)
    return [f"process {_description(process)}" for process in alive if process.is_running()]


def left_threads(before: Iterable[threading.Thread]) -> list[str]:
    """Threads that were not among `before` and do not end by themselves."""
    known = set(before)
    left = [thread for thread in threading.enumerate() if thread not in known]
    for thread in left:
        thread.join(_GRACE_S)
    return [f"thread {thread.name}" for thread in left if thread.is_alive()]


def _kept(process: psutil.Process) -> bool:
    try:
        return any(part in " ".join(process.cmdline()) for part in _KEPT)
    except psutil.Error:
        return True  # it has ended


def _description(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())
        started_by = process.environ().get(_STARTED_BY, "no test")
    except psutil.Error as error:
        return f"{process.pid} ({error})"
    return f"{process.pid}, started by {started_by}: {command[:200]}"
