"""Memory for several runs of a fragment at the same time: weights once, activations for each run."""

from splitplace.edge_node.catalogue import Catalogue
from splitplace.edge_node.memory import MemoryBudget


class ActivationLender:
    """Lends what the activations of a further run need, out of memory that is free. Called under one lock."""

    def __init__(self, catalogue: Catalogue, budget: MemoryBudget) -> None:
        self._catalogue = catalogue
        self._budget = budget
        self._lent: dict[str, list[int]] = {}
        """Sizes by fragment."""

    def lend(self, fragment: str) -> bool:
        """Whether there is memory for another run of a fragment; then it is taken."""
        found = self._catalogue.described(fragment)
        if found is None:
            return False
        size = max(0, found.fragment.peak_memory_bytes - found.fragment.weight_bytes)
        if not self._budget.lend(size):
            return False
        self._lent.setdefault(fragment, []).append(size)
        return True

    def repay(self, fragment: str) -> None:
        """Take it back."""
        sizes = self._lent[fragment]
        self._budget.repay(sizes.pop())
        if not sizes:
            del self._lent[fragment]
