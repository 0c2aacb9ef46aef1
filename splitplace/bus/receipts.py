"""Acknowledgements in the order of arrival, as MQTT 5 demands (4.6.0-2), although handlers end in any order.

rumqttd stops delivering to a client that acknowledges out of order. Pure.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Receipt:
    """A message that has arrived on one connection."""

    packet: int
    handled: bool = False


@dataclass(slots=True)
class Receipts:
    """What has arrived on one connection and is not acknowledged yet."""

    acknowledge: Callable[[int], None]
    """Tells the broker that the packet of this number was handled."""
    _open: deque[Receipt] = field(default_factory=deque)

    def arrived(self, packet: int) -> Receipt:
        """A message that will have to be acknowledged."""
        receipt = Receipt(packet)
        self._open.append(receipt)
        return receipt

    def handled(self, receipt: Receipt) -> None:
        """Acknowledge it and all that waited for it, unless an earlier one is still being handled."""
        receipt.handled = True
        while self._open and self._open[0].handled:
            self.acknowledge(self._open.popleft().packet)
