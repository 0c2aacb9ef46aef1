"""Run the dashboard beside the services of `splitplace up`."""

import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from splitplace.bus.settings import COMMANDS_USER, Settings
from splitplace.commands.processes.children import Processes
from splitplace.storage.secured import UsersFolder

NAME = "dashboard"
HOST = "127.0.0.1"
DEFAULT_PORT = 8484


def start_dashboard(processes: Processes, settings: Settings, flags: Sequence[str], *, wanted: bool) -> str:
    """Start the dashboard, if it can run here. Return a line that says where it is, or why there is none.

    Args:
        processes: gets one more.
        settings: of the services.
        flags: broker, prefix and state folder.
        wanted: whether to start it at all.
    """
    if not wanted:
        return f"no {NAME}, as was asked"
    users = None if settings.credentials is None else UsersFolder(settings.credentials.parent)
    reason = _hindrance(users.file(COMMANDS_USER) if users else None)
    if reason:
        return f"no {NAME}: {reason}"
    own = () if users is None else ("--credentials", str(users.file(COMMANDS_USER)))
    child = processes.start(NAME, (sys.executable, "-m", "splitplace", NAME, *flags, *own), restart=True)
    where = f"http://{HOST}:{DEFAULT_PORT}/"
    return f"{NAME:18} process {child.pid}, log in {child.log_file}: {where}"


def _hindrance(credentials: Path | None) -> str:
    """Return why it cannot run; empty if it can."""
    if credentials is not None and not credentials.is_file():
        return f"{credentials} is missing"
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, DEFAULT_PORT))
        except OSError:
            return f"port {DEFAULT_PORT} is in use (another dashboard? see splitplace dashboard --port)"
    return ""
