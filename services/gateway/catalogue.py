"""The catalogue as the gateway knows it, and whether it knows it: not ready is not invalid."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from math import inf

from splitplace.bus.background import now_ms
from splitplace.bus.connection import Received
from splitplace.messages.application import Application
from splitplace.services.gateway.intake import unknown_application
from splitplace.services.gateway.refusals import refuse

PATIENCE_MS = 3000.0
"""How long tasks wait for a catalogue that is missing, all of them together."""
SETTLE_MS = 500.0
"""The catalogue counts as complete this long after its last entry came."""
HEALED_MS = 3000.0
"""An entry that a stranger has cleared is published again by then."""


class Catalogue:
    """Applications by name. Tasks from the broker may overtake its retained entries."""

    def __init__(self, is_connected: Callable[[], bool], connections: Callable[[], int]) -> None:
        """Start empty.

        Args:
            is_connected: whether the connection on which entries come is up.
            connections: how often it was made.
        """
        self.applications: dict[str, Application] = {}
        """Not to be changed from outside. Removed ones stay: tasks that are under way end as they began."""
        self._is_connected = is_connected
        self._complete_at_ms = inf
        self._missing_since_ms: float | None = None
        self._news = asyncio.Event()
        self._cleared_ms: dict[str, float] = {}
        """When entries were cleared."""
        self._connections = connections
        self._came_on: dict[str, int] = {}
        """The number of the connection on which each entry came last."""
        self._last_came = (0, 0.0)
        """That of the last entry, and when it came."""

    def on_entry(self, received: Received[Application]) -> None:
        """Note a new or changed entry."""
        application = received.message
        self.applications[application.name] = application
        self._cleared_ms.pop(application.name, None)
        # What the broker keeps comes at once, while the next connection is still being made.
        number = self._connections() + (not self._is_connected())
        self._came_on[application.name] = number
        self._last_came = number, now_ms()
        self._complete_at_ms = now_ms() + SETTLE_MS
        self._missing_since_ms = None
        self._news.set()

    def on_cleared(self, levels: Mapping[str, str]) -> None:
        """Note that an entry is gone, unless it is published again: the application was removed."""
        if levels["application"] in self.applications:
            self._cleared_ms.setdefault(levels["application"], now_ms())

    def current(self, name: str) -> Application | None:
        """Return an application that takes tasks; None for one that is not known, or was removed."""
        return None if self._is_removed(name) else self.applications.get(name)

    def _is_removed(self, name: str) -> bool:
        cleared_ms = self._cleared_ms.get(name, inf)
        if self._is_connected() and self._came_on.get(name, 0) < self._connections() <= self._last_came[0]:
            # Others came on this connection, this one did not: it was removed while there was none. Where
            # none comes, the broker is new, and the splitter away.
            cleared_ms = min(cleared_ms, self._last_came[1])
        return now_ms() - cleared_ms >= HEALED_MS

    async def connected(self) -> None:
        """Expect the entries once more: the connection is new, and so may be the broker."""
        if self.applications:
            self._complete_at_ms = now_ms() + SETTLE_MS
        self._news.set()

    async def find(self, name: str) -> Application:
        """Return an application, waiting for it a while if the catalogue is not complete.

        Raises:
            TaskRefusedError: `unknown-application` if the catalogue is complete, otherwise `not-ready`.
        """
        while (found := self.current(name)) is None:
            now = now_ms()
            if self._is_connected() and now >= self._complete_at_ms:
                known = [each for each in self.applications if not self._is_removed(each)]
                refuse("unknown-application", unknown_application(name, known))
            if self._missing_since_ms is None:
                self._missing_since_ms = now
            give_up_ms = self._missing_since_ms + PATIENCE_MS
            if now >= give_up_ms:
                reason = "the gateway is not ready: it has no complete catalogue (is the splitter running?)"
                refuse("not-ready", f"{reason}; try again")
            until_ms = min(give_up_ms, self._complete_at_ms if self._complete_at_ms > now else inf)
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout((until_ms - now) / 1e3):
                    await self._news.wait()
        return found
