"""Equation 12: the placement climbs the surrogate's gradient until it stands still.

A placement is kept as probabilities, a softmax over the hosts of each fragment, and the gradient with respect
to them is added to the logits (mirror ascent; on a simplex a plain gradient step leaves the simplex). Printed
with a minus sign, equation 12 is meant to raise an objective that is to be maximised. Each fragment's step is
measured in standard deviations of its gradient, so that the learning rate needs no knowledge of scales.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policies.cluster_columns import ClusterColumns
from policies.placement.features import Problem
from policies.placement.surrogate import Array, Relaxed

STEP = 1.0
"""`eta`: standard deviations of the gradient by which logits grow in the first step."""

DECAY = 0.05
"""The n-th step is `1 / (1 + DECAY * n)` as long: fragments that flee from each other come to rest."""

THRESHOLD = 0.01
"""Change of the placement that counts as none: its L2 norm over the root of the number of fragments."""

MAX_STEPS = 60

Chosen = npt.NDArray[np.intp]
"""[F] index of each fragment's host, -1 where none was found."""

_NEVER = -1e9


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis."""
    powers: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def climb(surrogate: Relaxed, start: Array, allowed: npt.NDArray[np.bool_]) -> Array:
    """The relaxed placement [F, H] to which equation 12 converges.

    Args:
        surrogate: the objective as a function of the placement.
        start: [F, H] logits.
        allowed: [F, H] hosts that may be taken, at least one for every fragment.
    """
    logits = np.where(allowed, start, np.float32(_NEVER))
    placement = softmax(logits)
    for step in range(MAX_STEPS):
        _, gradient = surrogate.gradient(placement)
        centred = gradient - np.einsum("fh,fh->f", placement, gradient)[:, None]
        deviation = np.sqrt(np.einsum("fh,fh->f", placement, centred**2)) + np.float32(1e-6)
        logits += np.where(allowed, np.float32(STEP / (1 + DECAY * step)) * centred / deviation[:, None], 0)
        before, placement = placement, softmax(logits)
        if np.sqrt(((placement - before) ** 2).sum() / len(placement)) < THRESHOLD:
            break
    return placement


@dataclass(slots=True)
class _Room:
    """Memory of hosts while fragments are given to them."""

    free: npt.NDArray[np.float64]
    brought: dict[str, npt.NDArray[np.bool_]]


def rounded(outputs: Array, problem: Problem, columns: ClusterColumns) -> Chosen:
    """A host for each fragment, the one of highest output that still has room; -1 where there is none.

    The fragments that need most memory choose first.

    Args:
        outputs: [F, H] relaxed placement.
        problem: the fragments.
        columns: the cluster.
    """
    room = _Room(columns.free_bytes(), {})
    chosen = np.full(len(problem.stages), -1, dtype=np.intp)
    for index in np.argsort(-problem.memory, kind="stable"):
        sha256 = problem.stages[index].fragment
        held = columns.reserved(sha256) | room.brought.get(sha256, False)
        fits = problem.allowed[index] & (held | (problem.memory[index] <= room.free))
        if fits.any():
            host = int(np.where(fits, outputs[index], -np.inf).argmax())
            chosen[index] = host
            if not held[host]:
                room.free[host] -= problem.memory[index]
                room.brought.setdefault(sha256, np.zeros(len(room.free), dtype=bool))[host] = True
    return chosen


def one_hot(chosen: Chosen, hosts: int) -> Array:
    """A placement [F, H] without doubt; a row of zeros where no host was found."""
    placement = np.zeros((len(chosen), hosts), dtype=np.float32)
    found = np.flatnonzero(chosen >= 0)
    placement[found, chosen[found]] = 1
    return placement
