"""When the tensors of one job have crossed the broker's link. Pure."""

from collections.abc import Sequence

import numpy as np

from splitplace.policies.cost import Floats

_NONE: Floats = np.zeros(0)


class BrokerLink:
    """What a job has of the broker's link: its tensors cross one after the other, as they become ready."""

    __slots__ = ("_ready_ms", "_sizes", "byte_ms")

    def __init__(self, byte_ms: float) -> None:
        """A link on which the job has nothing yet.

        Args:
            byte_ms: time of a byte of the job; 0 where the bandwidth is not known.
        """
        self.byte_ms = byte_ms
        self._ready_ms, self._sizes = _NONE, _NONE

    @property
    def carried_bytes(self) -> float:
        """Bytes of all tensors that were put."""
        return float(self._sizes.sum())

    def crossed_ms(self, ready_ms: Sequence[float], sizes: Sequence[float]) -> list[float]:
        """Return when each of some further tensors has crossed, beside those that were put.

        Args:
            ready_ms: when each is ready at its source.
            sizes: bytes of each.
        """
        every_ready_ms = np.concatenate((self._ready_ms, ready_ms))
        every_size = np.concatenate((self._sizes, sizes))
        order = np.argsort(every_ready_ms, kind="stable")
        took_ms = every_size[order] * self.byte_ms
        done_ms = took_ms.cumsum()
        # Of all moments since which the link was busy, the one that says the latest.
        crossed_ms = np.maximum.accumulate(every_ready_ms[order] - done_ms + took_ms) + done_ms
        found = np.empty(len(order))
        found[order] = crossed_ms
        times: list[float] = found[len(self._sizes) :].tolist()
        return times

    def put(self, ready_ms: Sequence[float], sizes: Sequence[float]) -> None:
        """Take tensors."""
        self._ready_ms = np.concatenate((self._ready_ms, ready_ms))
        self._sizes = np.concatenate((self._sizes, sizes))

    def copy(self) -> "BrokerLink":
        """Return an independent copy."""
        other = BrokerLink(self.byte_ms)
        other._ready_ms, other._sizes = self._ready_ms, self._sizes
        return other
