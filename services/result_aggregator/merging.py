"""Merge the outputs of several stages into one class and its confidence for each input.

A softmax over columns that arrive in groups needs only three numbers a row from each group: the greatest
logit, its column, and the sum of exponentials relative to it. So outputs are condensed as they arrive, and no
logits are kept.

A row that holds NaN or infinity says nothing about its input: it counts as if it had not come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.messages.application import Scores
from splitplace.messages.frames import FrameError
from splitplace.messages.task import ClassScore

_LOGITS_RANK = 2
_LARGEST_EXPONENT = 700.0
"""Its exponential is still a number."""


@dataclass(frozen=True, slots=True)
class Condensed:
    """An output of shape `[rows, columns]`, condensed to three arrays of shape `[rows]`."""

    columns: int
    best_column: NDArray[np.int64]
    best_logit: NDArray[np.float64]
    """Negative infinity in rows that are not finite."""
    exponentials: NDArray[np.float64]
    """Sum over columns of exp(logit - best logit); at least 1."""

    @property
    def rows(self) -> int:
        """Number of inputs."""
        return len(self.best_column)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.best_column.nbytes + self.best_logit.nbytes + self.exponentials.nbytes

    @property
    def finite_rows(self) -> int:
        """Number of inputs whose logits are finite."""
        return int(np.count_nonzero(self.best_logit > -inf))


def condense(logits: NDArray[Any]) -> Condensed:
    """Condense an output to the numbers that a softmax over all outputs needs.

    Args:
        logits: shape `[rows, columns]`, float16 or float32.

    Raises:
        FrameError: another shape or type.
    """
    if logits.ndim != _LOGITS_RANK or logits.dtype.kind != "f":
        raise FrameError(
            f"logits of shape {logits.shape} and type {logits.dtype}, expected [rows, columns] of floats"
        )
    wide = logits.astype(np.float64)
    broken = ~np.isfinite(wide).all(axis=1)
    wide[broken] = 0
    best = wide.argmax(axis=1)
    best_logit = wide[np.arange(len(wide)), best]
    exponentials = np.exp(wide - best_logit[:, np.newaxis]).sum(axis=1)
    best_logit[broken] = -inf
    return Condensed(wide.shape[1], best, best_logit, exponentials)


def class_scores(
    parts: Sequence[tuple[Sequence[int], Condensed]], coverage: float = 1.0, scores: Scores = "softmax"
) -> list[ClassScore | None]:
    """Return the winning class of every row, and its softmax over the columns of all parts.

    Parts that are not finite in a row are left out there; None where none of them is finite.

    A softmax over some of the classes is a probability *given that the class is among these*. It is
    multiplied by the probability of that: their share of all classes, as if every class were equally likely.
    Small logits, which speak against all classes of a part, are not used.

    Args:
        parts: for each output, the class of each of its columns, and the output; all of the same rows.
            Equal logits in two parts: the smaller class wins.
        coverage: share of all classes that the parts have, in (0, 1].
        scores: how confidences are made: the softmax, or the sigmoid of the winner's own logit.
    """
    logits = np.stack([part.best_logit for _, part in parts])
    indices = np.stack([np.asarray(classes)[part.best_column] for classes, part in parts])
    finite = logits > -inf
    columns = np.array([[part.columns] for _, part in parts])
    shares = coverage * (finite * columns).sum(axis=0) / columns.sum()
    greatest = np.where(finite.any(axis=0), logits.max(axis=0), 0.0)
    total = (np.stack([part.exponentials for _, part in parts]) * np.exp(logits - greatest)).sum(axis=0)
    if scores == "sigmoid":
        shares = (shares > 0).astype(float)
        total = 1 + np.exp(np.clip(-greatest, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    winner = np.where(logits == greatest, indices, np.iinfo(np.int64).max).min(axis=0)
    return [
        ClassScore(index=int(index), confidence=min(1.0, float(share / one_of))) if share else None
        for index, one_of, share in zip(winner, total, shares, strict=True)
    ]
