"""Run variants from their files, merge as the result aggregator does, and measure the answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.messages.application import INPUT, Application, Variant
from splitplace.storage.model_store import ModelStore, verify
from splitplace.workshop.datasets import Subset
from splitplace.workshop.packing.description import Load
from splitplace.workshop.packing.telling import Told, tell_nobody
from splitplace.workshop.pieces.loaded import stage_runtime

BOTTLENECK = "layer-bottleneck"
"""Name of the chain whose boundaries are trained to be narrow: not the whole network's graph."""

EQUAL_LOGITS = 1e-4
"""Greatest difference of logits at which a chain counts as equal to the network it was cut from. Where logits
are larger than 1, it is a share of the largest."""

ACCURACY_TOLERANCE = 0.0005
"""Five images of ten thousand: processors differ in rounding."""


@dataclass(frozen=True)
class Measured:
    """Measurements of a variant on labelled images."""

    variant: str
    accuracy: float
    images: int
    difference_from_whole: float
    """Greatest difference of any logit from the variant `whole`, as `difference` gives it."""
    sink_accuracy: tuple[float, ...]
    """For each last stage, the accuracy on the images of its own classes; 0 if there are none."""


def variant_logits(
    application: Application, variant: Variant, load: Load, images: NDArray[Any]
) -> NDArray[np.float32]:
    """Compute the logits `float32[N, classes]` of a variant, in micro-batches, stage by stage.

    Args:
        application: The application.
        variant: The variant to run.
        load: Function that loads a fragment.
        images: A batch of task inputs.

    Raises:
        FragmentError: A fragment does not load, or does not fit its source.
    """
    runtimes = {stage.name: load(application.fragment(stage.fragment)) for stage in variant.stages}
    classes = sum(len(stage.classes) for stage in variant.sinks)
    logits = np.empty((len(images), classes), np.float32)
    for start in range(0, len(images), variant.micro_batch):
        part = slice(start, start + variant.micro_batch)
        tensors: dict[str, NDArray[Any]] = {INPUT: images[part]}
        for stage in variant.stages:
            tensors[stage.name] = runtimes[stage.name].run(tensors[stage.source])
        for stage in variant.sinks:
            logits[part, list(stage.classes)] = tensors[stage.name]
    return logits


def difference(logits: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the greatest difference of any logit, in units of the largest expected one if that exceeds 1."""
    return float(np.abs(logits - expected).max() / max(1.0, float(np.abs(expected).max())))


def measure(
    application: Application, load: Load, subset: Subset, told: Told = tell_nobody
) -> tuple[Measured, ...]:
    """Run every variant of an application on the same images. One variant must be named `whole`."""
    whole = variant_logits(application, application.variant("whole"), load, subset.images)
    results = []
    for variant in application.variants:
        told(f"measuring {variant.name} on {len(subset)} pictures")
        if variant.name == "whole":
            logits = whole
        else:
            logits = variant_logits(application, variant, load, subset.images)
        right = logits.argmax(axis=1) == subset.labels
        results.append(
            Measured(
                variant=variant.name,
                accuracy=float(right.mean()),
                images=len(subset),
                difference_from_whole=difference(logits, whole),
                sink_accuracy=tuple(
                    _share(right[np.isin(subset.labels, stage.classes)]) for stage in variant.sinks
                ),
            )
        )
    return tuple(results)


def evaluate(store: ModelStore, name: str, test: Subset) -> tuple[Application, tuple[Measured, ...]]:
    """Verify every file of an application and measure its variants on the test images.

    Raises:
        StoreError: The application or a file is missing or damaged.
    """
    application = store.application(name)
    for file in application.files:
        verify(store.file_path(file.sha256), file.sha256)
    return application, measure(application, partial(stage_runtime, store, application), test)


def discrepancies(application: Application, results: Sequence[Measured]) -> Iterator[str]:
    """Yield a sentence for each measurement that differs from the stored value."""
    for variant, result in zip(application.variants, results, strict=True):
        if abs(variant.accuracy - result.accuracy) > ACCURACY_TOLERANCE:
            yield f"{variant.name}: accuracy is {result.accuracy:.4f}, stored is {variant.accuracy:.4f}"
        if variant.accuracy_images != result.images:
            yield f"{variant.name}: measured on {result.images} images, stored is {variant.accuracy_images}"
        if is_cut_whole(variant) and not result.difference_from_whole <= EQUAL_LOGITS:
            yield f"{variant.name}: logits differ from the whole's by {result.difference_from_whole:.1e}"


def is_cut_whole(variant: Variant) -> bool:
    """Whether a variant is the whole network, cut: a chain without trained bottlenecks."""
    return variant.kind == "layer" and variant.name != BOTTLENECK


def _share(right: NDArray[np.bool_]) -> float:
    return float(right.mean()) if len(right) else 0.0
