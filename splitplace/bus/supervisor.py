"""Tell systemd that a part is ready, and that it makes progress (sd_notify).

Only for the process that systemd has started: the address is taken out of the environment, so children do not
speak for it.
"""

import contextlib
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass

_FEEDS_PER_PERIOD = 3
"""How often a watchdog is fed in the time after which it bites."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Who has started this process and waits for news of it; maybe nobody."""

    address: str = ""
    """Address of a Unix datagram socket; empty where nobody listens. `@` begins an abstract one."""
    watchdog_s: float | None = None
    """The process is killed when it is not fed for this long; None = never."""

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
        return cls(address, int(period_us) / 1e6 if is_watched else None)

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

    def _tell(self, text: str) -> None:
        if not self.address:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with (
            contextlib.suppress(OSError),  # a supervisor that is away is no reason to stop
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
        ):
            notify.sendto(text.encode(), address)
