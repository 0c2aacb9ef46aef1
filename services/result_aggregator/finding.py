"""Make answers of outputs that are not merged: objects, maps, vectors, texts, tensors. Pure.

Outputs come from nodes, which are not trusted: the work is linear in the size of an output, which the
manifest fixes, and what is found in all inputs of a task together is bounded. Boxes are suppressed on the
nodes, so nothing here compares candidates with each other.

Run it in a thread where the output is large: packing a map of classes takes milliseconds.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitplace.messages import answer_kinds as kinds
from splitplace.messages.application import Application
from splitplace.messages.findings import (
    Finding,
    FoundObject,
    FoundObjects,
    FoundRegions,
    FoundTensor,
    FoundTensors,
    FoundText,
    FoundVector,
    Region,
)
from splitplace.messages.frames import FrameError
from splitplace.messages.limits import (
    MAX_FINDING_BYTES,
    MAX_FOUND,
    MAX_FOUND_VALUES,
    MAX_MAP_PIXELS,
    MAX_REGIONS,
)

Arrays = Mapping[str, NDArray[Any]]
"""Outputs by name, each with the inputs of a micro-batch first."""


def check_form(arrays: Arrays, application: Application) -> int:
    """Return how many inputs outputs are of.

    Raises:
        FrameError: They are not what the manifest says.
    """
    expected = {tensor.name: tensor.spec for tensor in application.outputs}
    if arrays.keys() != expected.keys():
        raise FrameError(f"outputs {sorted(arrays)}, the manifest says {sorted(expected)}")
    rows = {len(array) if array.ndim else 0 for array in arrays.values()}
    for name, array in arrays.items():
        if (array.dtype.name, array.shape[1:]) != (expected[name].dtype, expected[name].shape):
            raise FrameError(
                f"output {name}: {array.dtype} {array.shape}, the manifest says {expected[name]}"
            )
    if len(rows) != 1:
        raise FrameError("outputs of different numbers of inputs")
    return rows.pop()


def findings(arrays: Arrays, application: Application, inputs: int) -> tuple[Finding | None, ...]:
    """Return what was found in each input of a micro-batch; None where an output is not finite.

    Args:
        arrays: Outputs that `check_form` has passed.
        application: The manifest; its answers are not merged.
        inputs: Number of inputs of the whole task, which share the room of an answer.
    """
    rows = check_form(arrays, application)
    return tuple(
        _finding({name: array[row] for name, array in arrays.items()}, application, max(1, inputs))
        for row in range(rows)
    )


def _finding(row: Arrays, application: Application, inputs: int) -> Finding | None:
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in row.values()):
        return None
    labels, first = application.labels, next(iter(row.values()))
    match application.answers:
        case kinds.Detection() as detection:
            return _objects(first, detection, labels, min(detection.most, max(1, MAX_FOUND // inputs)))
        case kinds.Segmentation():
            return _regions(first, labels, inputs)
        case kinds.Embedding():
            return FoundVector(values=tuple(float(f"{value:.7g}") for value in first))
        case kinds.Sequence() as sequence:
            return _text(first, sequence.blank, labels, max(1, MAX_FOUND_VALUES // inputs))
    return FoundTensors(
        tensors=tuple(
            FoundTensor(name=tensor.name, dtype=tensor.spec.dtype, shape=array.shape, data=array.tobytes())
            for tensor in application.outputs
            if (array := row.get(tensor.name)) is not None
        )
    )


def _objects(
    candidates: NDArray[Any], detection: kinds.Detection, labels: Sequence[str], most: int
) -> FoundObjects:
    """Return the surest candidates of `[candidates, 6]`."""
    confidences, classes = candidates[:, 4], candidates[:, 5]
    is_found = (
        (confidences >= max(detection.threshold, np.finfo(np.float32).tiny))
        & (classes >= 0)
        & (classes < len(labels))
        & (candidates[:, 0] < candidates[:, 2])
        & (candidates[:, 1] < candidates[:, 3])
    )
    places = np.flatnonzero(is_found)
    best = places[np.argsort(-confidences[places], kind="stable")][:most]
    return FoundObjects(
        objects=tuple(
            FoundObject(
                label=labels[int(classes[place])],
                index=int(classes[place]),
                confidence=min(1.0, round(float(confidences[place]), 6)),
                box=_box(candidates[place]),
            )
            for place in best
        )
    )


def _box(candidate: NDArray[Any]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(np.clip(side, -1e8, 1e8)), 2) for side in candidate[:4])
    return left, top, right, bottom


def _regions(classes: NDArray[Any], labels: Sequence[str], inputs: int) -> FoundRegions:
    """Return a map of classes in few enough pixels for its share of the answer, and its largest classes."""
    counts = np.bincount(classes.ravel(), minlength=len(labels))
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    picture = Image.fromarray(np.ascontiguousarray(classes))
    while picture.width * picture.height > max(1, MAX_MAP_PIXELS // inputs):
        picture = _halved(picture)
    while len(packed := _png(picture)) > MAX_FINDING_BYTES // inputs and max(picture.size) > 1:
        picture = _halved(picture)
    return FoundRegions(
        png=packed[:MAX_FINDING_BYTES],
        regions=tuple(
            Region(
                label=labels[index] if index < len(labels) else str(index),
                index=index,
                share=float(counts[index] / classes.size),
            )
            for index in order[: max(1, MAX_REGIONS // inputs)]
        ),
    )


def _halved(picture: Image.Image) -> Image.Image:
    smaller = max(1, picture.width // 2), max(1, picture.height // 2)
    return picture.resize(smaller, Image.Resampling.NEAREST)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _text(steps: NDArray[Any], blank: int, symbols: Sequence[str], most: int) -> FoundText:
    """Return the text of `[steps, 2]`: repeated symbols and blanks are left out (greedy CTC)."""
    best = steps[:, 0].clip(-1, len(symbols)).astype(np.int64)
    is_new = np.concatenate([[True], best[1:] != best[:-1]])
    kept = np.flatnonzero(is_new & (best != blank) & (best >= 0) & (best < len(symbols)))
    shares = steps[kept, 1].clip(0, 1)
    return FoundText(
        text="".join(symbols[index] for index in best[kept])[: min(most, MAX_FOUND)],
        confidence=round(float(shares.mean()), 6) if len(kept) else 0.0,
    )
