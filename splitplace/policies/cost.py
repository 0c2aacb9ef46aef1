"""What things cost, in ms: a call, a transfer, a hop through the broker, waiting for a node or a fragment.

The one cost model of splitter, placer, simulator and nodes. Every formula takes the numbers of one node, or
arrays with an entry for each node, and returns the same. NaN = not known.
"""

from math import ceil, inf, isnan, nan
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from splitplace.messages.limits import CHUNK_BYTES

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Condition = Flags | bool
Amount = TypeVar("Amount", float, Floats)
"""A number, or one for each node."""

HOP_MS = 2.5
"""From process to process through the broker, without the transfer of bytes (measured: 2 to 3 ms)."""

RETURN_HOPS = 2
"""Node to aggregator, aggregator to gateway."""

RETURN_MS = RETURN_HOPS * HOP_MS
"""From the last stage to the gateway, without the transfer of bytes."""

FETCH_MS = 50.0
"""Fetching and loading a fragment, without the transfer of its bytes (measured: 49 ms to load 18 MB).

On a whole core. A node with less of one takes longer, and reports its own time once it has loaded a fragment.
"""

MAP_MS = 50.0
"""Loading a prepared fragment (measured: 30 ms for ResNet50, and checking its hashes once).

A node reports its own time once it has loaded one.
"""

COMPRESS_BELOW_MEGABYTES_PER_SECOND = 150.0
"""Nodes compress what they send over slower links; on faster ones zstd costs more time than it saves."""
_LEAST_MS = 1e-300
"""Stands for 0 ms, so that a node without speed takes infinitely long for it as well."""


def transfer_ms(size: float, megabytes_per_second: Amount) -> Amount:
    """Return the time to move `size` bytes over a link; infinite where there is none."""
    return _per(size, 1000 * megabytes_per_second)


def relay_ms(size: float, megabytes_per_second: Amount) -> Amount:
    """Return what passing the broker adds to a transfer from node to node over the slower of both links.

    The broker sends a chunk on when it has the whole of it, so each crosses the faster link by itself.

    Args:
        size: bytes of the tensor; of a large one, a chunk counts.
        megabytes_per_second: bandwidth of the faster link.
    """
    return transfer_ms(min(size, CHUNK_BYTES), megabytes_per_second)


def slowness(reference_score: float, score: Amount) -> Amount:
    """Return how many times as long as the reference device a node takes; infinite without speed."""
    return _per(reference_score, score)


def call_ms(described_ms: float, slow: Amount, measured_ms: Amount | float = nan) -> Amount:
    """Return the time of a call beside its images.

    Args:
        described_ms: `Fragment.milliseconds_per_call`.
        slow: `slowness` of the node.
        measured_ms: the node's own time of a call, which counts instead of the described one.
    """
    return image_ms(described_ms, slow, measured_ms)


def image_ms(described_ms: float, slow: Amount, measured_ms: Amount | float) -> Amount:
    """Return the time of an image in a call.

    Args:
        described_ms: `Fragment.milliseconds_per_image`.
        slow: `slowness` of the node.
        measured_ms: the node's own time per image, which counts instead of the described one.
    """
    return _select(_is_unknown(measured_ms) | (slow == inf), max(described_ms, _LEAST_MS) * slow, measured_ms)


def work_ms(calls: int, images: int, each_call_ms: Amount, each_image_ms: Amount) -> Amount:
    """Return the computing time of some calls on so many images together."""
    return calls * each_call_ms + images * each_image_ms


def together_gain(calls: int, threads: Amount, together: Amount) -> Amount:
    """Return how many times as fast as one by one a node works off equal calls that wait together.

    It runs one at a time on all its cores while that is faster, else one in each thread.

    Args:
        calls: Number of calls.
        threads: Calls that it may run at once.
        together: Speed of so many at once, against one at a time.
    """
    if isinstance(threads, np.ndarray):
        return np.maximum(1.0, together * calls / (threads * np.ceil(calls / threads)))
    return max(1.0, together * calls / (threads * ceil(calls / threads)))


def ahead_ms(earlier_ms: Amount, unexplained_until_ms: Amount, now_ms: float) -> Amount:
    """Return the work that a node does before a task: what is due earlier, and what no ledger explains."""
    return earlier_ms + _later(unexplained_until_ms - now_ms, 0.0)


def ready_ms(now_ms: float, busy_until_ms: Amount, ahead: Amount) -> Amount:
    """Return when a node can begin work that is placed on it now; at least `now_ms`.

    Args:
        now_ms: the present moment.
        busy_until_ms: when all work of the node is expected to be done.
        ahead: `ahead_ms` of the task.
    """
    return _later(_sooner(busy_until_ms, now_ms + ahead), now_ms)


def fetch_ms(
    file_bytes: float, megabytes_per_second: Amount, load_ms: Amount, *, is_missing: Condition = True
) -> Amount:
    """Return the time to fetch and load a fragment.

    Args:
        file_bytes: size of its files.
        megabytes_per_second: bandwidth of the node; without a link, loading takes infinitely long.
        load_ms: what loading a fragment of this size takes on this node once its files are there.
        is_missing: whether they are not there yet.
    """
    moving_ms = transfer_ms(file_bytes, megabytes_per_second)
    moving_ms = _select(is_missing | (megabytes_per_second <= 0), moving_ms, 0.0)
    return moving_ms + _select(_is_known(load_ms), load_ms, FETCH_MS)


def map_ms(seen_ms: Amount) -> Amount:
    """Return the time to load a fragment that is prepared.

    Args:
        seen_ms: what that has taken on this node.
    """
    if isinstance(seen_ms, np.ndarray):
        return np.where(np.isnan(seen_ms), MAP_MS, seen_ms)
    return MAP_MS if isnan(seen_ms) else seen_ms


def fragment_ready_ms(now_ms: float, arriving_ms: Amount, fetching_ms: Amount) -> Amount:
    """Return when a node can run a fragment that is not loaded there; at least `now_ms`.

    Args:
        now_ms: the present moment.
        arriving_ms: when it is expected, where the node was told to load it.
        fetching_ms: `fetch_ms` of the fragment.
    """
    return _select(_is_unknown(arriving_ms), now_ms + fetching_ms, _later(arriving_ms, now_ms))


def _per(amount: float, rate: Amount) -> Amount:
    """Return amount / rate; infinite where the rate is not positive."""
    if isinstance(rate, np.ndarray):
        quotients: Floats = np.divide(amount, rate, out=np.full(rate.shape, inf), where=rate > 0)
        return quotients
    return amount / rate if rate > 0 else inf


def _select(condition: Condition, where_true: Amount, where_false: Amount | float) -> Amount:
    if isinstance(where_true, np.ndarray):
        return np.where(condition, where_true, where_false)
    return where_true if condition else where_false


def _is_known(amount: float | Floats) -> Condition:
    if isinstance(amount, np.ndarray):
        known: Flags = ~np.isnan(amount)
        return known
    return not isnan(amount)


def _is_unknown(amount: float | Floats) -> Condition:
    if isinstance(amount, np.ndarray):
        unknown: Flags = np.isnan(amount)
        return unknown
    return isnan(amount)


def _later(moment: Amount, other: float) -> Amount:
    if isinstance(moment, np.ndarray):
        return np.maximum(moment, other)
    return max(other, moment)


def _sooner(moment: Amount, other: Amount) -> Amount:
    if isinstance(moment, np.ndarray):
        return np.minimum(moment, other)
    return min(other, moment)
