"""Links shared by transfers; exact, without time steps.

A transfer crosses one or more links (the sender's uplink, the receiver's downlink, possibly the broker's).
Each link gives its transfers equal shares of its bandwidth; a transfer runs at the smallest of its shares.
The unused rest of a larger share is not given to others, so no transfer gets more than by max-min fairness.

A transfer that becomes slower keeps its event, which then comes too early and plans the next one. So a burst
of transfers over one link costs few events.
"""

from collections.abc import Callable, Iterable
from functools import partial
from math import inf

from splitplace.simulator.events import Event, EventQueue


class Link:
    """One direction of a network interface."""

    __slots__ = ("bytes_per_ms", "share", "transfers")

    def __init__(self, megabytes_per_second: float) -> None:
        self.bytes_per_ms = 1000.0 * megabytes_per_second
        self.transfers: dict[Transfer, None] = {}
        """Current transfers, in the order in which they began."""
        self.share = self.bytes_per_ms
        """Bandwidth for each transfer, in bytes per ms."""

    def divide(self) -> None:
        """Divide the bandwidth among the transfers that there are now."""
        self.share = self.bytes_per_ms / len(self.transfers) if self.transfers else self.bytes_per_ms


class Transfer:
    """Bytes under way."""

    __slots__ = ("done", "ends_ms", "event", "left", "links", "rate", "since_ms")

    def __init__(self, size: float, links: tuple[Link, ...], done: Callable[[], None], now_ms: float) -> None:
        self.left = size
        """Bytes not yet sent at `since_ms`."""
        self.links = links
        self.done = done
        self.rate = -1.0
        self.since_ms = now_ms
        self.ends_ms = inf
        """When it ends at this rate."""
        self.event: Event | None = None
        """At its end or before."""

    def left_at(self, now_ms: float) -> float:
        """Return the bytes not yet sent."""
        return max(0.0, self.left - max(0.0, self.rate) * (now_ms - self.since_ms))


class Network:
    """All transfers under way."""

    def __init__(self, events: EventQueue) -> None:
        self._events = events

    def send(self, size: float, links: tuple[Link, ...], done: Callable[[], None]) -> Transfer:
        """Start a transfer of `size` bytes; `done` is called at its end."""
        transfer = Transfer(size, links, done, self._events.now_ms)
        for link in links:
            link.transfers[transfer] = None
            link.divide()
        self._refresh(links)
        return transfer

    def stop(self, transfer: Transfer) -> float:
        """Abort a transfer and return the bytes that were left; 0 if it had finished."""
        if transfer not in transfer.links[0].transfers:
            return 0.0
        self._settle(transfer)
        self._leave(transfer)
        return transfer.left

    def set_bandwidth(self, link: Link, megabytes_per_second: float) -> None:
        """Change the bandwidth of a link."""
        link.bytes_per_ms = 1000.0 * megabytes_per_second
        link.divide()
        if link.transfers:
            self._refresh((link,))

    def _refresh(self, links: Iterable[Link]) -> None:
        """Update the rate of each transfer on the links."""
        for link in links:
            for transfer in link.transfers:
                rate = min([crossed.share for crossed in transfer.links])
                if rate != transfer.rate:
                    self._settle(transfer)
                    transfer.rate = rate
                    transfer.ends_ms = self._events.now_ms + transfer.left / rate if rate > 0 else inf
                    if transfer.event is None or transfer.event.time_ms > transfer.ends_ms:
                        self._plan(transfer)

    def _plan(self, transfer: Transfer) -> None:
        """Plan the end of a transfer, if it has one."""
        if transfer.event is not None:
            transfer.event.cancel()
        transfer.event = (
            self._events.at(transfer.ends_ms, partial(self._due, transfer))
            if transfer.ends_ms < inf
            else None
        )

    def _settle(self, transfer: Transfer) -> None:
        now_ms = self._events.now_ms
        transfer.left = transfer.left_at(now_ms)
        transfer.since_ms = now_ms

    def _leave(self, transfer: Transfer) -> None:
        if transfer.event is not None:
            transfer.event.cancel()
        for link in transfer.links:
            del link.transfers[transfer]
            link.divide()
        self._refresh(transfer.links)

    def _due(self, transfer: Transfer) -> None:
        transfer.event = None
        if transfer.ends_ms > self._events.now_ms:
            self._plan(transfer)  # it has become slower
            return
        self._leave(transfer)
        transfer.done()
