"""Equation 12: mirror ascent of the placement on the surrogate's gradient until it converges.

A placement is kept as probabilities, a softmax over the nodes of each stage, and the gradient with respect to
them is added to the logits (a plain gradient step would leave the simplex). Equation 12 is printed with a
minus sign, but the objective is to be maximised. Each stage's step is in standard deviations of its gradient,
so that the learning rate does not depend on scales.
"""

import numpy as np
import numpy.typing as npt

from splitplace.policies.cluster_columns import ClusterColumns
from splitplace.policies.cost import Flags
from splitplace.policies.placement.features import Problem
from splitplace.policies.placement.surrogate import Array, SurrogateObjective

STEP = 3.0
"""`eta`: standard deviations of the gradient by which logits grow in the first step."""

DECAY = 0.1
"""The n-th step is `1 / (1 + DECAY * n)` as long, so that stages that avoid each other converge."""

THRESHOLD = 0.05
"""Change of the placement that counts as none: its L2 norm over the root of the number of stages."""

MAX_STEPS = 20

MAX_MOVES = 10
"""Moves of single stages after the relaxed placement has converged."""

LEAST_GAIN = 1e-3
"""Objective that such a move must bring."""

Chosen = npt.NDArray[np.intp]
"""[S] Index of each stage's node, -1 if none was found."""

_NEVER = -1e30
"""Logit from which no gradient leads away."""


def softmax(logits: Array) -> Array:
    """Return probabilities over the last axis."""
    powers: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def mirror_ascent(surrogate: SurrogateObjective, start: Array, allowed: Flags) -> Array:
    """Return the relaxed placement [S, N] to which equation 12 converges.

    Args:
        surrogate: the objective as a function of the placement.
        start: [S, N] logits.
        allowed: [S, N] nodes that may be chosen, at least one for every stage.
    """
    logits = np.where(allowed, start, np.float32(_NEVER))
    placement = softmax(logits)
    scale = np.full(len(logits), np.float32(1e-6))
    for step in range(MAX_STEPS):
        gradient = surrogate.gradient(placement)
        gradient -= np.einsum("sn,sn->s", placement, gradient)[:, None]
        # Never smaller than before: if the best is a mixture, steps shrink instead of oscillating around it.
        scale = np.maximum(scale, np.sqrt(np.einsum("sn,sn,sn->s", placement, gradient, gradient)))
        logits += gradient * (np.float32(STEP / (1 + DECAY * step)) / scale)[:, None]
        before, placement = placement, softmax(logits)
        if np.sqrt(((placement - before) ** 2).sum() / len(placement)) < THRESHOLD:
            break
    return placement


class FreeMemory:
    """Free memory of the nodes while stages are put on them and taken away again."""

    def __init__(self, problem: Problem, columns: ClusterColumns) -> None:
        """Begin with the cluster as it is."""
        self._problem = problem
        self._columns = columns
        self._free = columns.free_bytes()
        self._brought: dict[str, npt.NDArray[np.intp]] = {}
        """Number of the stages put on each node that run a fragment, by hash."""

    def nodes(self, index: int) -> Flags:
        """Return [N] where there is memory for a stage."""
        sha256 = self._problem.stages[index].fragment
        fits = self._columns.shared(sha256) | (self._problem.memory[index] <= self._free)
        if sha256 in self._brought:
            fits |= (self._brought[sha256] > 0) & self._columns.sharing
        usable: Flags = self._problem.allowed[index] & fits
        return usable

    def put(self, index: int, node: int, count: int = 1) -> None:
        """Put a stage on a node; with a count of -1, take it away."""
        sha256 = self._problem.stages[index].fragment
        if self._columns.shared(sha256)[node]:
            return
        brought = self._brought.setdefault(sha256, np.zeros(len(self._free), dtype=np.intp))
        needed = brought[node] > 0
        brought[node] += count
        if needed != (brought[node] > 0) or not self._columns.sharing[node]:
            self._free[node] -= count * self._problem.memory[index]


def rounded(placement: Array, problem: Problem, free: FreeMemory) -> Chosen:
    """Return the most probable node with enough memory for each stage; -1 if there is none.

    A node gets as many stages as the relaxed placement has there, rounded, but at least one. Otherwise all
    stages would go to the same one of equal nodes, which is a little more probable for all of them. The
    stages that need most memory choose first.

    Args:
        placement: [S, N] relaxed.
        problem: the stages.
        free: free memory of the nodes; the chosen stages are put there.
    """
    chosen = np.full(len(placement), -1, dtype=np.intp)
    vacant = np.maximum(placement.sum(axis=0).round(), 1)
    for index in np.argsort(-problem.memory, kind="stable").tolist():
        fits = free.nodes(index)
        if fits.any():
            usable = fits & (vacant > 0)
            node = int(np.where(usable if usable.any() else fits, placement[index], -np.inf).argmax())
            free.put(index, node)
            chosen[index] = node
            vacant[node] -= 1
    return chosen


def local_search(surrogate: SurrogateObjective, chosen: Chosen, free: FreeMemory) -> Chosen:
    """Improve the placement of a single task by the best move of one stage, as long as that gains.

    Rounding moves all stages of a relaxed placement at once; this corrects the result.

    Args:
        surrogate: the objective of that task.
        chosen: a node for each stage.
        free: free memory of the nodes; moved stages are put there.
    """
    chosen = chosen.copy()
    for _ in range(MAX_MOVES):
        values = surrogate.moves(chosen)
        enough = values[0, chosen[0]] + LEAST_GAIN
        while True:
            index, node = divmod(int(values.argmax()), surrogate.node_count)
            if values[index, node] < enough:
                return chosen
            usable = free.nodes(index)
            if usable[node]:
                break
            values[index, ~usable] = -np.inf
        free.put(index, int(chosen[index]), -1)
        free.put(index, node)
        chosen[index] = node
    return chosen


def one_hot(chosen: Chosen, nodes: int) -> Array:
    """Return a placement [S, N] of zeros and ones; a row of zeros for a stage without a node."""
    placement = np.zeros((len(chosen), nodes), dtype=np.float32)
    found = np.flatnonzero(chosen >= 0)
    placement[found, chosen[found]] = 1
    return placement
