"""Memory for several runs of a fragment at the same time: weights once, activations for each run."""

from collections.abc import Callable

from splitplace.edge_node.memory import MemoryBudget


class ActivationLender:
    """Lends what the activations of a further run need, out of memory that is free. Called under one lock."""

    def __init__(self, activation_bytes: Callable[[str], int | None], budget: MemoryBudget) -> None:
        """Lend out of a budget.

        Args:
            activation_bytes: returns what a further run of a fragment takes; None if it is unknown.
            budget: the memory.
        """
        self._activation_bytes = activation_bytes
        self._budget = budget
        self._lent: dict[str, list[int]] = {}
        """Sizes by fragment."""

    def lend(self, fragment: str) -> bool:
        """Whether there is memory for another run of a fragment; then it is taken."""
        size = self._activation_bytes(fragment)
        if size is None or not self._budget.lend(size):
            return False
        self._lent.setdefault(fragment, []).append(size)
        return True

    def repay(self, fragment: str) -> None:
        """Take it back."""
        sizes = self._lent[fragment]
        self._budget.repay(sizes.pop())
        if not sizes:
            del self._lent[fragment]
