"""What fragments take of a node's memory, as it was measured where their application was added. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from splitplace.messages.base import Bytes, Part
from splitplace.messages.limits import PREPARED_FROM_BYTES


class MeasuredMemory(Part):
    """Private memory of one fragment, measured in processes of its own: what is promised until a node has
    measured it itself.
    """

    preparing_bytes: Bytes
    """Peak of the process that prepares it, beyond a bare process; 0 if it is loaded as it is."""
    loading_bytes: Bytes
    """Peak while it is loaded."""
    loaded_bytes: Bytes
    """What it takes once it is loaded, before it has run."""
    running_bytes: Bytes
    """The greatest that it takes with micro-batches up to that of its variants, and their outputs."""


class MeasuredRun(NamedTuple):
    """A run of pieces whose memory was measured."""

    weight_bytes: int
    activation_bytes: int
    """Tensors of a micro-batch that live at once, as described."""
    memory: MeasuredMemory

    @property
    def is_prepared(self) -> bool:
        """Whether it was prepared and mapped."""
        return self.memory.preparing_bytes > 0

    @property
    def beside_weights_bytes(self) -> int:
        """What it takes once it is loaded, beside weights that it holds itself."""
        return max(0, self.memory.loaded_bytes - (0 if self.is_prepared else self.weight_bytes))


def foreseen_memory(
    known: Sequence[MeasuredRun], weight_bytes: int, activation_bytes: int
) -> MeasuredMemory | None:
    """Return what another run of pieces of the same network is expected to take.

    The greatest memory for each byte of weights, and of live tensors, that was measured of the others.

    Args:
        known: Runs that were measured.
        weight_bytes: Weights of the other run.
        activation_bytes: Its tensors of a micro-batch that live at once.

    Returns:
        The memory; None if none was measured that tells it.
    """
    is_prepared = weight_bytes >= PREPARED_FROM_BYTES
    alike = [run for run in known if run.is_prepared == is_prepared and run.weight_bytes]
    if not known or (is_prepared and not alike):
        return None
    held = 0 if is_prepared else weight_bytes
    loaded_bytes = held + max(run.beside_weights_bytes for run in known)
    loading = max(
        # Weights that are stored narrower are held twice while they are widened.
        [(run.memory.loading_bytes - run.memory.loaded_bytes) / run.weight_bytes for run in alike],
        default=1.0,
    )
    running = max(
        (run.memory.running_bytes - run.memory.loaded_bytes) / max(1, run.activation_bytes) for run in known
    )
    preparing = max(run.memory.preparing_bytes / run.weight_bytes for run in alike) if is_prepared else 0.0
    return MeasuredMemory(
        preparing_bytes=int(preparing * weight_bytes),
        loading_bytes=loaded_bytes + int(loading * weight_bytes),
        loaded_bytes=loaded_bytes,
        running_bytes=loaded_bytes + int(max(0.0, running) * activation_bytes),
    )
