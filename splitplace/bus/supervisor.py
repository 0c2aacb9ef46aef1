"""Tell systemd that a part is ready, and that it makes progress (sd_notify); tell containers by a file.

Only for the process that systemd or the container engine has started: what they said is taken out of the
environment, so children do not speak for it.
"""

import contextlib
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

ALIVE_VARIABLE = "SPLITPLACE_ALIVE_FILE"
"""Names the file that a part touches while it is online and makes progress: a health check that costs next to
nothing looks how old it is."""

ALIVE_EVERY_S = 5.0
"""Period of touching that file."""

_FEEDS_PER_PERIOD = 3
"""How often a watchdog is fed in the time after which it bites."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Who has started this process and waits for news of it; maybe nobody."""

    address: str = ""
    """Address of a Unix datagram socket; empty where nobody listens. `@` begins an abstract one."""
    watchdog_s: float | None = None
    """The process is killed when it is not fed for this long; None = never."""
    alive_file: Path | None = None
    """Touched while all is well; None = nobody looks."""

    @classmethod
    def found(
        cls, environment: MutableMapping[str, str] = os.environ, pid: int | None = None
    ) -> "Supervisor":
        """Take what systemd has said out of the environment."""
        address = environment.pop("NOTIFY_SOCKET", "")
        period_us = environment.pop("WATCHDOG_USEC", "")
        meant_for = environment.pop("WATCHDOG_PID", "")
        is_for_us = meant_for in {"", str(os.getpid() if pid is None else pid)}
        is_watched = is_for_us and period_us.isdigit() and int(period_us) > 0
        alive = environment.pop(ALIVE_VARIABLE, "")
        return cls(address, int(period_us) / 1e6 if is_watched else None, Path(alive) if alive else None)

    @property
    def feed_every_s(self) -> float | None:
        """Period of `feed`; None where nobody waits for it."""
        watched = self.address and self.watchdog_s is not None
        return self.watchdog_s / _FEEDS_PER_PERIOD if watched and self.watchdog_s else None

    def ready(self, status: str) -> None:
        """Say that the start is over, and what is done now."""
        self._tell(f"READY=1\nSTATUS={status}")

    def feed(self) -> None:
        """Say that there is progress."""
        self._tell("WATCHDOG=1")

    def alive(self) -> None:
        """Touch the file that a health check looks at."""
        if self.alive_file is not None:
            with contextlib.suppress(OSError):  # a full disk shows in the file's age
                self.alive_file.touch()

    def _tell(self, text: str) -> None:
        if not self.address:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with (
            contextlib.suppress(OSError),  # a supervisor that is away is no reason to stop
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
        ):
            notify.sendto(text.encode(), address)
