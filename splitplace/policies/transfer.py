"""What it takes to bring bytes to a node."""

from math import inf

FETCH_MS = 50.0
"""Fetching and loading a fragment, without the transfer of its bytes (measured: 49 ms to load 18 MB).

On a whole core; a node with less of one takes longer, and tells how long once it has loaded a fragment.
"""


def transfer_ms(size: float, megabytes_per_second: float) -> float:
    """Time to move `size` bytes over a link; infinite where there is none."""
    return size / (1000 * megabytes_per_second) if megabytes_per_second > 0 else inf
