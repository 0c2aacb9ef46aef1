"""Run variants from their files, merge as the result aggregator does, and measure the answers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.messages.application import INPUT, Application, Variant
from splitplace.messages.tensors import TensorSpec
from splitplace.storage.model_store import ModelStore, verify
from splitplace.workshop.datasets import Subset
from splitplace.workshop.packing.description import Load
from splitplace.workshop.packing.telling import Told, tell_nobody
from splitplace.workshop.packing.unfinished import NOTHING, Unfinished
from splitplace.workshop.pieces.loaded import stage_runtime

BOTTLENECK = "layer-bottleneck"
"""Name of the chain whose boundaries are trained to be narrow: not the whole network's graph."""

EQUAL_LOGITS = 1e-4
"""Greatest difference of logits at which a chain counts as equal to the network it was cut from. Where logits
are larger than 1, it is a share of the largest."""

EQUAL_HALVES = 1e-2
"""The same for networks that compute with float16: ten times the distance of its numbers around 1."""

_EXCHANGED = 0.01
"""Share of the candidates of a detector, or of the pixels of a map, that rounding may exchange."""

_SURE = 0.05
"""Confidence from which a candidate of a detector counts when two lists are compared."""

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
) -> NDArray[Any]:
    """Compute the logits `float32[N, classes]` of a variant, or its first output. See `variant_outputs`."""
    return variant_outputs(application, variant, load, [images])[0]


def variant_outputs(
    application: Application, variant: Variant, load: Load, inputs: Sequence[NDArray[Any]]
) -> tuple[NDArray[Any], ...]:
    """Compute the logits `float32[N, classes]` of a variant, or its outputs, in micro-batches.

    Args:
        application: The application.
        variant: The variant to run.
        load: Function that loads a fragment.
        inputs: A batch of each of its inputs, in the order of the manifest.

    Raises:
        FragmentError: A fragment does not load, or does not fit its source.
    """
    runtimes = {stage.name: load(application.fragment(stage.fragment)) for stage in variant.stages}
    count = len(inputs[0])
    made = [np.empty((count, *spec.shape), spec.dtype) for spec in _answer_specs(application, variant)]
    for start in range(0, count, variant.micro_batch):
        part = slice(start, start + variant.micro_batch)
        tensors: dict[str, list[NDArray[Any]]] = {INPUT: [array[part] for array in inputs]}
        for stage in variant.stages:
            runtime = runtimes[stage.name]
            names = [tensor.name for tensor in runtime.inputs]
            handed_on = runtime.run_bundle(dict(zip(names, tensors[stage.source], strict=True)))
            tensors[stage.name] = list(handed_on.values())
        for stage in variant.sinks:
            if application.outputs:
                for array, found in zip(made, tensors[stage.name], strict=True):
                    array[part] = found
            else:
                made[0][part, list(stage.classes)] = tensors[stage.name][0]
    return tuple(made)


def _answer_specs(application: Application, variant: Variant) -> list[TensorSpec]:
    """Return what a variant gives for an input: its outputs, or a number for each class."""
    if application.outputs:
        return [tensor.spec for tensor in application.outputs]
    return [TensorSpec(dtype="float32", shape=(sum(len(stage.classes) for stage in variant.sinks),))]


def difference(logits: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the greatest difference of any logit, in units of the largest expected one if that exceeds 1."""
    return float(np.abs(logits - expected).max() / max(1.0, float(np.abs(expected).max())))


def difference_of_kind(application: Application, found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return how much outputs differ where answers are no classes.

    Candidates, maps and symbols are chosen among values, so a difference in rounding may exchange two that
    are alike. So of candidates the confidences are compared, and one place in a hundred may differ.
    """
    kind = application.answers.kind
    if kind == "detection":
        confidences = np.abs(found[..., 4]), np.abs(expected[..., 4])
        moved = float(np.mean([_exchanged(*pair) for pair in zip(found, expected, strict=True)]))
        return max(difference(*confidences), moved if moved > _EXCHANGED else 0.0)
    if found.dtype.kind != "f":
        changed = float((found != expected).mean())
        return changed if changed > (_EXCHANGED if kind == "segmentation" else 0) else 0.0
    return difference(found[..., 1], expected[..., 1]) if kind == "sequence" else difference(found, expected)


def _exchanged(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the share of the sure candidates of one picture that stand in only one of two lists."""
    lists = [
        Counter(map(tuple, rows[np.abs(rows[:, 4]) >= _SURE][:, [0, 1, 2, 3, 5]].round().tolist()))
        for rows in (found, expected)
    ]
    either = sum((lists[0] | lists[1]).values())
    return 1 - sum((lists[0] & lists[1]).values()) / either if either else 0.0


def compared(
    application: Application, load: Load, inputs: Sequence[NDArray[Any]], told: Told = tell_nobody
) -> tuple[Measured, ...]:
    """Run every variant of an application on the same inputs, and tell how far it is from `whole`.

    Nothing says which answers are right, so accuracies are 0.
    """
    whole = variant_outputs(application, application.variant("whole"), load, inputs)
    results = []
    for variant in application.variants:
        told(f"measuring {variant.name} on {len(inputs[0])} inputs")
        found = whole if variant.name == "whole" else variant_outputs(application, variant, load, inputs)
        pairs = list(zip(found, whole, strict=True))
        if application.outputs:
            apart = max(difference_of_kind(application, *pair) for pair in pairs)
        else:
            apart = difference(*pairs[0])
        results.append(Measured(variant.name, 0.0, len(inputs[0]), apart, tuple(0.0 for _ in variant.sinks)))
    return tuple(results)


def measure(
    application: Application,
    load: Load,
    subset: Subset,
    told: Told = tell_nobody,
    kept: Unfinished = NOTHING,
) -> tuple[Measured, ...]:
    """Run every variant of an application on the same images and count the right classes.

    One variant must be named `whole`. Answers that are no classes have no accuracy: see `compared`.
    """
    images = sha256(subset.images.tobytes()).hexdigest() if kept.measured is not None else ""

    def logits_of(variant: Variant) -> NDArray[Any]:
        told(f"measuring {variant.name} on {len(subset)} pictures")
        about = (images, variant.micro_batch, [stage.fragment for stage in variant.stages])
        compute = partial(variant_logits, application, variant, load, subset.images)
        return kept.array_once("logits", about, compute)

    whole = logits_of(application.variant("whole"))
    results = []
    for variant in application.variants:
        logits = whole if variant.name == "whole" else logits_of(variant)
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
        if is_cut_whole(variant) and not result.difference_from_whole <= equal_logits(application):
            yield f"{variant.name}: logits differ from the whole's by {result.difference_from_whole:.1e}"


def equal_logits(application: Application) -> float:
    """Return the greatest difference at which a chain counts as equal to the network it was cut from."""
    crossing = (
        spec.dtype
        for fragment in application.fragments
        for spec in (
            fragment.input,
            fragment.output,
            *(each.spec for each in (*fragment.inputs, *fragment.outputs)),
        )
    )
    return EQUAL_HALVES if "float16" in crossing else EQUAL_LOGITS


def is_cut_whole(variant: Variant) -> bool:
    """Whether a variant is the whole network, cut: a chain without trained bottlenecks."""
    return variant.kind == "layer" and variant.name != BOTTLENECK


def _share(right: NDArray[np.bool_]) -> float:
    return float(right.mean()) if len(right) else 0.0
