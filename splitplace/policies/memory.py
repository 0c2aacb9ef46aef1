"""What fragments take of a node's memory, as nodes and placement reckon it. Pure.

A node joins the pieces of a fragment with large weights once, in a child process, and then maps the prepared
form: its weights take no private memory. Small ones are joined each time they are loaded, and hold their
weights.
"""

from math import inf
from typing import NamedTuple

from splitplace.messages.application import Fragment
from splitplace.messages.limits import MEBIBYTE, PREPARED_FROM_BYTES
from splitplace.messages.measured_memory import MeasuredMemory

_PREPARING = 1.2
"""Private memory of the preparing process, as a multiple of the weights in memory. Enough for ResNet50,
InceptionV3, MobileNetV2 and a vision transformer."""
_PREPARING_NARROW = 2.4
"""The same where weights are stored narrower than they are in memory: all steps of widening are held."""
_PREPARING_BYTES = 6 * MEBIBYTE
_PREPARING_LARGEST = 1.2
"""Private memory of a preparation that leaves weights as they are, as a multiple of the largest of them."""
_ACTIVATIONS = 2.2
"""Private memory of a run, as a multiple of the tensors that live at once: 1.05 for ResNet50, 2.2 for a
vision transformer, with the buffers of its products."""
_SESSION_BYTES = 4 * MEBIBYTE
"""Private memory of a mapped fragment before it runs (measured: 2 to 3 MiB)."""
_SPREAD = 1.05
_SPREAD_BYTES = 1 * MEBIBYTE
"""Measurements of one fragment differ by so much (seen: 0.3 MiB and 2 %)."""


def is_prepared(fragment: Fragment) -> bool:
    """Whether nodes prepare a fragment and map it."""
    return fragment.chain is not None and fragment.weight_bytes >= PREPARED_FROM_BYTES


def reserved_bytes(measured_bytes: float) -> int:
    """Return what to reserve where so much was measured."""
    return int(_SPREAD * measured_bytes) + _SPREAD_BYTES


def activation_bytes(fragment: Fragment) -> int:
    """Return the memory of a further run of a loaded fragment at the same time, as its manifest says."""
    memory = _measured(fragment)
    if memory is not None:
        return max(0, described_bytes(fragment) - memory.loaded_bytes)
    described = max(0, fragment.peak_memory_bytes - fragment.weight_bytes)
    return int(_ACTIVATIONS * described) if is_prepared(fragment) else described


def described_bytes(fragment: Fragment) -> int:
    """Return the private memory of a loaded fragment: what its manifest measured, or what follows from it."""
    memory = _measured(fragment)
    if memory is not None:
        return reserved_bytes(max(memory.running_bytes, memory.loading_bytes))
    if not is_prepared(fragment):
        return fragment.peak_memory_bytes
    return activation_bytes(fragment) + _SESSION_BYTES


class Preparation(NamedTuple):
    """How a fragment is prepared."""

    private_bytes: int
    """Private memory that it takes beyond a bare process."""
    packed: bool
    """Whether weights are laid out for the processor, so that runs are faster."""


def preparing_bytes(fragment: Fragment) -> int:
    """Return the private memory of a preparation with weights laid out for the processor; 0 if none is."""
    if not is_prepared(fragment):
        return 0
    memory = _measured(fragment)
    if memory is not None:
        return max(reserved_bytes(memory.preparing_bytes), described_bytes(fragment))
    factor = _PREPARING_NARROW if _is_narrow(fragment) else _PREPARING
    return max(int(factor * fragment.weight_bytes) + _PREPARING_BYTES, described_bytes(fragment))


def least_preparing_bytes(fragment: Fragment) -> int:
    """Return the private memory of a preparation that leaves weights as they are; 0 if none is needed.

    Weights are written one after the other, so it holds the largest. Where its size is not known, or weights
    are to be widened, all may have to be held.
    """
    usual = preparing_bytes(fragment)
    if not usual or not fragment.largest_weight_bytes or _is_narrow(fragment):
        return usual
    least = int(_PREPARING_LARGEST * fragment.largest_weight_bytes) + _PREPARING_BYTES
    return min(usual, max(least, described_bytes(fragment)))


def least_budget_bytes(fragment: Fragment) -> int:
    """Return the smallest memory budget of a node that can prepare and run a fragment."""
    return max(least_preparing_bytes(fragment), described_bytes(fragment))


def preparation(fragment: Fragment, budget_bytes: float) -> Preparation:
    """Return how a node prepares a fragment: laid out for its processor if its budget holds that."""
    usual = preparing_bytes(fragment)
    if usual <= budget_bytes:
        return Preparation(usual, packed=True)
    return Preparation(least_preparing_bytes(fragment), packed=False)


def next_preparation(fragment: Fragment, lacked: Preparation, budget_bytes: int) -> Preparation | None:
    """Return what to try after a preparation that lacked memory; None if the budget holds no other."""
    if lacked.private_bytes < budget_bytes:
        return lacked._replace(private_bytes=min(2 * lacked.private_bytes, budget_bytes))
    return Preparation(least_preparing_bytes(fragment), packed=False) if lacked.packed else None


def _measured(fragment: Fragment) -> MeasuredMemory | None:
    """Return the memory that was measured of a fragment, if it was loaded as nodes load it."""
    memory = fragment.memory
    if memory is None or (memory.preparing_bytes > 0) != is_prepared(fragment):
        return None
    return memory


def _is_narrow(fragment: Fragment) -> bool:
    return fragment.file_bytes < 0.75 * fragment.weight_bytes


def needed_bytes(fragment: Fragment, *, budget_bytes: float, own_bytes: int | None) -> float:
    """Return the memory that a node must have free for a fragment; infinite if it is too small to prepare it.

    Args:
        fragment: The fragment.
        budget_bytes: The memory budget of the node.
        own_bytes: What the node itself has measured; None if it has not prepared the fragment.
    """
    if own_bytes is not None:
        return own_bytes
    return inf if least_preparing_bytes(fragment) > budget_bytes else described_bytes(fragment)


def megabytes(size: float) -> str:
    """Return a size in MiB, the unit of `--memory-budget-mb`."""
    return f"{size / MEBIBYTE:.3g} MiB"
