"""Counters of a connection."""

from dataclasses import astuple, dataclass


@dataclass(slots=True)
class Statistics:
    """Counters of a bus since it was made."""

    received: int = 0
    rejected: int = 0
    overflowed: int = 0
    reconnects: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    refused: int = 0
    """Publications and subscriptions that the broker refused."""
    undeliverable: int = 0
    """Publications given up because each attempt cost the connection."""

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(*(own + more for own, more in zip(astuple(self), astuple(other), strict=True)))
