"""Count which branch wins for the pictures of each group of classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.messages.application import Application, Variant
from splitplace.workshop.datasets import DatasetError, Subset
from splitplace.workshop.packing.description import Load
from splitplace.workshop.packing.evaluation import variant_logits
from splitplace.workshop.packing.pictures import labelled_pictures


@dataclass(frozen=True)
class GroupConfusion:
    """How often each branch of a variant wins for the pictures of each branch's classes."""

    variant: str
    branches: tuple[str, ...]
    """Names of the last stages."""
    won: NDArray[np.int64]
    """`int64[k, k]`: pictures whose right class the row's branch owns and for which the column's won."""
    right: tuple[float, ...]
    """Accuracy on the pictures of each branch's classes; 0 if there are none."""
    whole_right: tuple[float, ...]
    """The same for the whole network; empty if the application has none."""

    @property
    def wrong_branch(self) -> float:
        """Share of pictures for which a branch won that does not own the right class."""
        total = int(self.won.sum())
        return 1 - int(np.trace(self.won)) / total if total else 0.0


def several_sinks(application: Application) -> tuple[Variant, ...]:
    """Return the variants whose classes are divided among several last stages."""
    return tuple(variant for variant in application.variants if len(variant.sinks) > 1)


def group_confusions(application: Application, load: Load, test: Subset) -> Iterator[GroupConfusion]:
    """Run the variants with several last stages, and the whole network for comparison.

    Raises:
        FragmentError: A fragment does not load, or does not fit its source.
    """
    variants = several_sinks(application)
    single = next((variant for variant in application.variants if variant.name == "whole"), None)
    whole = variant_logits(application, single, load, test.images) if variants and single else None
    for variant in variants:
        logits = variant_logits(application, variant, load, test.images)
        yield group_confusion(variant, logits, whole, test.labels)


def group_confusion(
    variant: Variant,
    logits: NDArray[np.float32],
    whole: NDArray[np.float32] | None,
    labels: NDArray[np.integer[Any]],
) -> GroupConfusion:
    """Count which branch won.

    Args:
        variant: A variant whose last stages own groups of classes.
        logits: Logits of the variant, `[N, classes]`.
        whole: Logits of the whole network, or None.
        labels: The right classes, `[N]`.
    """
    groups = [stage.classes for stage in variant.sinks]
    owner = np.empty(logits.shape[1], np.int64)
    for index, group in enumerate(groups):
        owner[list(group)] = index
    answers = logits.argmax(axis=1)
    won = np.zeros((len(groups), len(groups)), np.int64)
    np.add.at(won, (owner[labels], owner[answers]), 1)
    return GroupConfusion(
        variant.name,
        tuple(stage.name for stage in variant.sinks),
        won,
        _accuracies(answers == labels, owner[labels], len(groups)),
        () if whole is None else _accuracies(whole.argmax(axis=1) == labels, owner[labels], len(groups)),
    )


def _accuracies(right: NDArray[np.bool_], group: NDArray[np.int64], groups: int) -> tuple[float, ...]:
    of_group = [right[group == index] for index in range(groups)]
    return tuple(float(part.mean()) if len(part) else 0.0 for part in of_group)


def pictures_of(application: Application, folders: Sequence[Path]) -> Subset:
    """Read labelled test pictures of an application from the first folder that holds some.

    Args:
        application: The application.
        folders: Folders to try, in order.

    Raises:
        DatasetError: None of the folders holds any.
    """
    reasons = []
    for folder in folders:
        try:
            return labelled_pictures(application, folder)
        except DatasetError as error:
            reasons.append(str(error))
    raise DatasetError("; ".join(reasons))
