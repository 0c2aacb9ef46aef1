"""Answers that name several classes of one input: the best ones, or all that reach a threshold. Pure.

The logits of all branches are kept until the result, other than for the winner alone (`merging`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.messages.application import Scores
from splitplace.messages.findings import FoundLabels, Scored
from splitplace.messages.frames import FrameError
from splitplace.messages.task import ClassScore, ClassShare

_LOGITS_RANK = 2
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True, slots=True)
class Logits:
    """An output of shape `[rows, columns]`, as it came."""

    values: NDArray[np.float32]

    @property
    def rows(self) -> int:
        """Number of inputs."""
        return len(self.values)

    @property
    def columns(self) -> int:
        """Number of classes."""
        return int(self.values.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of the logits."""
        return self.values.nbytes

    @property
    def finite_rows(self) -> int:
        """Number of inputs whose logits are finite."""
        return int(np.isfinite(self.values).all(axis=1).sum())


def kept(logits: NDArray[Any]) -> Logits:
    """Keep an output `[rows, columns]`. Raises FrameError for another shape or type."""
    if logits.ndim != _LOGITS_RANK or logits.dtype.kind != "f":
        raise FrameError(
            f"logits of shape {logits.shape} and type {logits.dtype}, expected [rows, columns] of floats"
        )
    return Logits(logits.astype(np.float32))


def probabilities(
    parts: Sequence[tuple[Sequence[int], Logits]], classes: int, scores: Scores
) -> NDArray[np.float64]:
    """Return `[rows, classes]`; 0 for classes whose branch has not come or is not finite.

    Args:
        parts: For each output, the class of each of its columns, and the output; all of the same rows.
        classes: Number of all classes.
        scores: How they are made of logits. Shares of some classes are multiplied by their number over that
            of all, as if every class were equally likely.
    """
    logits = np.full((parts[0][1].rows, classes), -inf)
    for columns, part in parts:
        finite = np.isfinite(part.values).all(axis=1, keepdims=True)
        logits[:, list(columns)] = np.where(finite, part.values, -inf)
    known = logits > -inf
    if scores == "sigmoid":
        shares: NDArray[np.float64] = 1 / (
            1 + np.exp(-np.clip(logits, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
        )
        return np.where(known, shares, 0.0)
    greatest = np.where(known.any(axis=1), logits.max(axis=1), 0.0)
    powers = np.exp(logits - greatest[:, np.newaxis])
    total = powers.sum(axis=1, keepdims=True)
    coverage = known.sum(axis=1, keepdims=True) / classes
    made: NDArray[np.float64] = np.divide(
        powers * coverage, total, out=np.zeros_like(powers), where=total > 0
    )
    return made


def best_classes(shares: NDArray[np.float64], top: int) -> list[ClassScore | None]:
    """Return the best classes of each row; None for a row without any. A single one is not listed again."""
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    found: list[ClassScore | None] = []
    for row, best in zip(shares, order, strict=True):
        each = tuple(
            ClassShare(index=int(index), confidence=min(1.0, float(row[index])))
            for index in best
            if row[index]
        )
        listed = each if len(each) > 1 else ()
        found.append(
            ClassScore(index=each[0].index, confidence=each[0].confidence, top=listed) if each else None
        )
    return found


def reached(
    shares: NDArray[np.float64], threshold: float, labels: Sequence[str], most: int
) -> list[FoundLabels | None]:
    """Return the labels of each row whose probability reaches the threshold; None where nothing is known."""
    found: list[FoundLabels | None] = []
    for row in shares:
        order = np.argsort(-row, kind="stable")[:most]
        chosen = tuple(
            Scored(label=labels[index], index=int(index), confidence=min(1.0, float(row[index])))
            for index in order
            if row[index] >= max(threshold, np.finfo(float).tiny)
        )
        found.append(FoundLabels(labels=chosen) if row.any() else None)
    return found
