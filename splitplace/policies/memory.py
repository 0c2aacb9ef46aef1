"""What fragments take of a node's memory, as nodes and placement reckon it. Pure.

A node joins the pieces of a fragment with large weights once, in a child process, and then maps the prepared
form: its weights take no private memory. Small ones are joined each time they are loaded, and hold their
weights.
"""

from math import inf

from splitplace.messages.application import Fragment
from splitplace.messages.limits import MEBIBYTE

PREPARED_FROM_BYTES = 16 * MEBIBYTE
"""Weights from which on a fragment is prepared. Below, the process that prepares it costs more than it saves:
to start it takes a second of a whole core, and ten on a node that has a tenth of one."""

_PREPARING = 1.2
"""Private memory of the preparing process, as a multiple of the weights in memory. Enough for ResNet50,
InceptionV3, MobileNetV2 and a vision transformer."""
_PREPARING_NARROW = 2.4
"""The same where weights are stored narrower than they are in memory: all steps of widening are held."""
_PREPARING_BYTES = 6 * MEBIBYTE
_ACTIVATIONS = 2.2
"""Private memory of a run, as a multiple of the tensors that live at once: 1.05 for ResNet50, 2.2 for a
vision transformer, with the buffers of its products."""
_SESSION_BYTES = 4 * MEBIBYTE
"""Private memory of a mapped fragment before it runs (measured: 2 to 3 MiB)."""


def is_prepared(fragment: Fragment) -> bool:
    """Whether nodes prepare a fragment and map it."""
    return fragment.chain is not None and fragment.weight_bytes >= PREPARED_FROM_BYTES


def activation_bytes(fragment: Fragment) -> int:
    """Return the memory of a further run of a loaded fragment at the same time, as described."""
    described = max(0, fragment.peak_memory_bytes - fragment.weight_bytes)
    return int(_ACTIVATIONS * described) if is_prepared(fragment) else described


def described_bytes(fragment: Fragment) -> int:
    """Return the private memory of a loaded fragment that follows from its manifest."""
    if not is_prepared(fragment):
        return fragment.peak_memory_bytes
    return activation_bytes(fragment) + _SESSION_BYTES


def preparing_bytes(fragment: Fragment) -> int:
    """Return the private memory that preparing a fragment takes beyond a bare process; 0 if none does."""
    if not is_prepared(fragment):
        return 0
    is_narrow = fragment.file_bytes < 0.75 * fragment.weight_bytes
    factor = _PREPARING_NARROW if is_narrow else _PREPARING
    return max(int(factor * fragment.weight_bytes) + _PREPARING_BYTES, described_bytes(fragment))


def needed_bytes(fragment: Fragment, *, budget_bytes: float, own_bytes: int | None) -> float:
    """Return the memory that a node must have free for a fragment; infinite if it is too small to prepare it.

    Args:
        fragment: The fragment.
        budget_bytes: The memory budget of the node.
        own_bytes: What the node itself has measured; None if it has not prepared the fragment.
    """
    if own_bytes is not None:
        return own_bytes
    return inf if preparing_bytes(fragment) > budget_bytes else described_bytes(fragment)
