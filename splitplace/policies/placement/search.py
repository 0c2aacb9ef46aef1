"""Equation 12: the placement climbs the surrogate's gradient until it stands still.

A placement is kept as probabilities, a softmax over the hosts of each fragment, and the gradient with respect
to them is added to the logits (mirror ascent; on a simplex a plain gradient step leaves the simplex). Printed
with a minus sign, equation 12 is meant to raise an objective that is to be maximised. Each fragment's step is
measured in standard deviations of its gradient, so that the learning rate needs no knowledge of scales.
"""

import numpy as np
import numpy.typing as npt

from splitplace.policies.cluster_columns import ClusterColumns
from splitplace.policies.cost import Flags
from splitplace.policies.placement.features import Problem
from splitplace.policies.placement.surrogate import Array, Relaxed

STEP = 3.0
"""`eta`: standard deviations of the gradient by which logits grow in the first step."""

DECAY = 0.1
"""The n-th step is `1 / (1 + DECAY * n)` as long: fragments that flee from each other come to rest."""

THRESHOLD = 0.05
"""Change of the placement that counts as none: its L2 norm over the root of the number of fragments."""

MAX_STEPS = 20

MAX_MOVES = 10
"""Of single fragments, once the relaxed placement has come to rest."""

LEAST_GAIN = 1e-3
"""Objective that such a move must bring."""

Chosen = npt.NDArray[np.intp]
"""[F] index of each fragment's host, -1 where none was found."""

_NEVER = -1e30
"""Logit from which no gradient leads away."""


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis."""
    powers: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def climb(surrogate: Relaxed, start: Array, allowed: Flags) -> Array:
    """The relaxed placement [F, H] to which equation 12 converges.

    Args:
        surrogate: the objective as a function of the placement.
        start: [F, H] logits.
        allowed: [F, H] hosts that may be taken, at least one for every fragment.
    """
    logits = np.where(allowed, start, np.float32(_NEVER))
    placement = softmax(logits)
    scale = np.full(len(logits), np.float32(1e-6))
    for step in range(MAX_STEPS):
        gradient = surrogate.gradient(placement)
        gradient -= np.einsum("fh,fh->f", placement, gradient)[:, None]
        # Never smaller than before: where the best is a mixture, steps die away instead of swinging about it.
        scale = np.maximum(scale, np.sqrt(np.einsum("fh,fh,fh->f", placement, gradient, gradient)))
        logits += gradient * (np.float32(STEP / (1 + DECAY * step)) / scale)[:, None]
        before, placement = placement, softmax(logits)
        if np.sqrt(((placement - before) ** 2).sum() / len(placement)) < THRESHOLD:
            break
    return placement


class Room:
    """Memory of hosts while fragments are given to them and taken away again."""

    def __init__(self, problem: Problem, columns: ClusterColumns) -> None:
        """All hosts as they are."""
        self._problem = problem
        self._columns = columns
        self._free = columns.free_bytes()
        self._brought: dict[str, npt.NDArray[np.intp]] = {}
        """By fragment, how many of the stages given to each host run it."""

    def hosts(self, index: int) -> Flags:
        """[H] where there is room for a fragment."""
        sha256 = self._problem.stages[index].fragment
        fits = self._columns.shared(sha256) | (self._problem.memory[index] <= self._free)
        if sha256 in self._brought:
            fits |= (self._brought[sha256] > 0) & ~self._columns.exclusive
        usable: Flags = self._problem.allowed[index] & fits
        return usable

    def give(self, index: int, host: int, count: int = 1) -> None:
        """A fragment goes to a host; with a count of -1 it leaves it."""
        sha256 = self._problem.stages[index].fragment
        if self._columns.shared(sha256)[host]:
            return
        brought = self._brought.setdefault(sha256, np.zeros(len(self._free), dtype=np.intp))
        needed = brought[host] > 0
        brought[host] += count
        if needed != (brought[host] > 0) or self._columns.exclusive[host]:
            self._free[host] -= count * self._problem.memory[index]


def rounded(placement: Array, problem: Problem, room: Room) -> Chosen:
    """A host for each fragment, the most probable one that still has room; -1 where there is none.

    A host is given as many fragments as the relaxed placement has there, rounded, but one at least: of equal
    hosts the same one is a little more probable for all fragments, and they would all go there. The
    fragments that need most memory choose first.

    Args:
        placement: [F, H] relaxed.
        problem: the fragments.
        room: of the hosts; what is chosen is taken from it.
    """
    chosen = np.full(len(placement), -1, dtype=np.intp)
    vacant = np.maximum(placement.sum(axis=0).round(), 1)
    for index in np.argsort(-problem.memory, kind="stable").tolist():
        fits = room.hosts(index)
        if fits.any():
            usable = fits & (vacant > 0)
            host = int(np.where(usable if usable.any() else fits, placement[index], -np.inf).argmax())
            room.give(index, host)
            chosen[index] = host
            vacant[host] -= 1
    return chosen


def settled(surrogate: Relaxed, chosen: Chosen, room: Room) -> Chosen:
    """The placement of a single task after the best move of one fragment, again and again while that gains.

    Rounding moves all fragments of a relaxed placement at once; this looks at the result.

    Args:
        surrogate: the objective of that task.
        chosen: a host for each fragment.
        room: of the hosts; what is chosen is taken from it.
    """
    chosen = chosen.copy()
    for _ in range(MAX_MOVES):
        values = surrogate.moves(chosen)
        enough = values[0, chosen[0]] + LEAST_GAIN
        while True:
            index, host = divmod(int(values.argmax()), surrogate.hosts)
            if values[index, host] < enough:
                return chosen
            usable = room.hosts(index)
            if usable[host]:
                break
            values[index, ~usable] = -np.inf
        room.give(index, int(chosen[index]), -1)
        room.give(index, host)
        chosen[index] = host
    return chosen


def one_hot(chosen: Chosen, hosts: int) -> Array:
    """A placement [F, H] without doubt; a row of zeros where no host was found."""
    placement = np.zeros((len(chosen), hosts), dtype=np.float32)
    found = np.flatnonzero(chosen >= 0)
    placement[found, chosen[found]] = 1
    return placement
