"""Bring what detectors give into one form: candidates `float32[N, K, 6]`, suppressed ones below 0.

Left, top, right and bottom in pixels of the input, confidence, class. Suppression is ONNX's own operator, so
it runs on the node, and what travels is small.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from splitplace.workshop.user_networks.operators import Operators
from splitplace.workshop.user_networks.reading import UserNetworkError

Head = Literal["yolo", "yolo-objectness", "candidates", "scores-and-boxes", "ssd", "detr"]
"""How a detector gives its candidates: box and class scores; box, objectness and class scores; box,
confidence and class, suppressed already; scores and boxes as two outputs; likewise with a first class that is
background (`ssd`), or a last one that is nothing (`detr`)."""
HEADS: tuple[Head, ...] = get_args(Head)

Boxes = Literal["centre-pixels", "corners-pixels", "centre-share", "corners-share"]
"""Centre and size, or two corners; in pixels of the input, or as shares of it."""
BOXES: tuple[Boxes, ...] = get_args(Boxes)

MOST_CANDIDATES = 300
_BOX, _CANDIDATE = 4, 6
_RANK = 3
_SHARES_UP_TO = 2.0
_PIXELS_FROM = 0.2
"""Share of the input's longer side that the largest coordinate of pixels reaches on any picture."""
_TOLERANCE = 1e-3

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class DetectorWishes:
    """What the user says of a detector; None = recognise it."""

    labels: int
    head: Head | None = None
    boxes: Boxes | None = None
    overlap: float = 0.45
    """Share of common area (intersection over union) from which the weaker box of a class is suppressed."""


@dataclass(frozen=True)
class _Form:
    head: Head
    scores: str
    """The output with the scores; the only one, where there is one."""
    boxes: str
    attributes_axis: int = 2


def append_detector(
    model: onnx.ModelProto, arrays: Arrays, size: tuple[int, int], wishes: DetectorWishes
) -> tuple[str, int, tuple[str, ...]]:
    """Append what makes candidates of a detector's outputs.

    Args:
        model: Changed in place.
        arrays: Its outputs for a few inputs, by name, batch first.
        size: Width and height of its input.
        wishes: What the user says.

    Returns:
        The tensor of candidates, their number, and notes for people.

    Raises:
        UserNetworkError: It cannot be told what the outputs are.
    """
    form = _form(arrays, wishes)
    ops = Operators(model.graph)
    raw = arrays[form.scores]
    if form.attributes_axis == 1:
        raw = np.moveaxis(raw, 1, 2)
    first = 0 if form.scores != form.boxes else _BOX
    found_boxes = arrays[form.boxes] if first == 0 else raw[..., :_BOX]
    kind = wishes.boxes or _boxes(found_boxes, form.head, size)
    scores, count, how = raw[..., first:], raw.shape[1], ""
    tensor = ops.floats(form.scores)
    if form.attributes_axis == 1:
        tensor = ops.add("Transpose", tensor, perm=[0, 2, 1])
    boxes = ops.part(tensor, 0, _BOX, 2) if first else ops.floats(form.boxes)
    if form.head == "candidates":
        confidence = ops.shaped(ops.part(tensor, _BOX, _BOX + 1, 2), count)
        classes = ops.shaped(ops.part(tensor, _BOX + 1, _CANDIDATE, 2), count)
    else:
        values, how = _scores(
            ops, ops.part(tensor, first, raw.shape[2], 2) if first else tensor, scores, form
        )
        best, places = ops.best(values, 1, 2)
        confidence, classes = ops.shaped(best, count), ops.shaped(ops.floats(places), count)
    kept = min(count, MOST_CANDIDATES)
    made = _candidates(ops, (boxes, confidence, classes), kept, (kind, size), _overlap(form, wishes))
    said = "--head" if wishes.head else "recognised by the shapes of its outputs"
    notes = (
        f"detector {form.head} ({said}), boxes as {kind}{how}; {kept} of {count} candidates are handed on",
    )
    return made, kept, notes


def _overlap(form: _Form, wishes: DetectorWishes) -> float | None:
    return None if form.head in {"candidates", "detr"} else wishes.overlap


def _form(arrays: Arrays, wishes: DetectorWishes) -> _Form:
    """Recognise which output has what."""
    shapes = ", ".join(f"{name} {list(array.shape[1:])}" for name, array in arrays.items())
    if any(array.ndim != _RANK for array in arrays.values()) or not 1 <= len(arrays) <= 2:  # noqa: PLR2004
        raise UserNetworkError(
            f"a detector gives one output [candidates, numbers], or scores and boxes; this gives {shapes}: "
            "choose with --output"
        )
    found = _of_one(arrays, wishes) if len(arrays) == 1 else _of_two(arrays, wishes)
    fitting = [form for form in found if wishes.head in {None, form.head}]
    if len(fitting) != 1:
        which = ", ".join(form.head for form in fitting) or "none that is known"
        raise UserNetworkError(
            f"outputs {shapes} with {wishes.labels} labels may be {which}: say --head {', '.join(HEADS)}"
        )
    return fitting[0]


def _of_one(arrays: Arrays, wishes: DetectorWishes) -> list[_Form]:
    ((name, array),) = arrays.items()
    labels = wishes.labels
    sizes: dict[Head, int] = {"yolo": _BOX + labels, "yolo-objectness": _BOX + 1 + labels}
    found = [
        _Form(head, name, name, axis)
        for axis in (1, 2)
        for head, numbers in sizes.items()
        if array.shape[axis] == numbers and array.shape[3 - axis] > 1
    ]
    is_candidates = array.shape[2] == _CANDIDATE and (not found or wishes.head == "candidates")
    return [*found, _Form("candidates", name, name)] if is_candidates else found


def _of_two(arrays: Arrays, wishes: DetectorWishes) -> list[_Form]:
    found: list[_Form] = []
    names = list(arrays)
    for scores, boxes in (names, names[::-1]):
        classes = arrays[scores].shape[2]
        if arrays[boxes].shape[2] != _BOX or arrays[scores].shape[1] != arrays[boxes].shape[1]:
            continue
        if classes == wishes.labels:
            found.append(_Form("scores-and-boxes", scores, boxes))
        if classes == wishes.labels + 1:
            found += [_Form("ssd", scores, boxes), _Form("detr", scores, boxes)]
    named = [form for form in found if "box" in form.boxes.lower()]  # both may have four columns
    return named or found


def _boxes(boxes: NDArray[Any], head: Head, size: tuple[int, int]) -> Boxes:
    largest = float(np.abs(boxes).max())
    is_centre = head in {"yolo", "yolo-objectness", "detr"}
    if largest <= _SHARES_UP_TO:
        return "centre-share" if is_centre else "corners-share"
    if largest >= _PIXELS_FROM * max(size):
        return "centre-pixels" if is_centre else "corners-pixels"
    raise UserNetworkError(
        f"its boxes reach {largest:.3g} on an input of {size[0]} x {size[1]}: neither shares nor pixels; "
        f"perhaps they must be decoded first. Say --boxes {', '.join(BOXES)}, or export it with decoding"
    )


def _scores(ops: Operators, tensor: str, found: NDArray[Any], form: _Form) -> tuple[str, str]:
    """Return confidences `[N, A, classes]`, and how they are made, for people."""
    is_share = bool(found.min() >= -_TOLERANCE and found.max() <= 1 + _TOLERANCE)
    count = found.shape[2]
    if form.head in {"ssd", "detr"}:
        sums_to_one = is_share and np.allclose(found.sum(axis=2), 1, atol=_TOLERANCE)
        shares = tensor if sums_to_one else ops.add("Softmax", tensor, axis=2)
        inner = (1, count) if form.head == "ssd" else (0, count - 1)
        return ops.part(shares, *inner, 2), "" if sums_to_one else ", softmax of its scores"
    shares = tensor if is_share else ops.add("Sigmoid", tensor)
    how = "" if is_share else ", sigmoid of its scores"
    if form.head == "yolo-objectness":
        objectness = ops.part(shares, 0, 1, 2)
        return ops.add("Mul", ops.part(shares, 1, count, 2), objectness), how
    return shares, how


def _candidates(
    ops: Operators,
    candidates: tuple[str, str, str],
    kept: int,
    place: tuple[Boxes, tuple[int, int]],
    overlap: float | None,
) -> str:
    """Return the surest candidates `[N, kept, 6]`; suppressed ones have negative confidence."""
    boxes, confidence, classes = candidates
    kind, size = place
    values, places = ops.best(confidence, kept, 1)
    columns = ops.add("Concat", *(ops.shaped(places, kept, 1),) * _BOX, axis=2)
    boxes = ops.add("GatherElements", boxes, columns, axis=1)
    classes = ops.add("GatherElements", classes, places, axis=1)
    if kind.startswith("centre"):
        middle, sides = ops.part(boxes, 0, 2, 2), ops.part(boxes, 2, 4, 2)
        half = ops.add("Mul", sides, ops.constant(0.5))
        boxes = ops.add("Concat", ops.add("Sub", middle, half), ops.add("Add", middle, half), axis=2)
    whole = ops.constant(np.array([*size, *size], np.float32))
    if kind.endswith("share"):
        boxes = ops.add("Mul", boxes, whole)
    boxes = ops.add("Min", ops.add("Max", boxes, ops.constant(0.0)), whole)
    if overlap is not None:
        apart = ops.add("Mul", ops.shaped(classes, kept, 1), ops.constant(2.0 * max(size)))
        values = _suppressed(ops, ops.add("Add", boxes, apart), values, kept, overlap)
    return ops.add("Concat", boxes, ops.shaped(values, kept, 1), ops.shaped(classes, kept, 1), axis=2)


def _suppressed(ops: Operators, moved: str, values: str, kept: int, overlap: float) -> str:
    """Make the confidence of suppressed candidates negative, given boxes that classes have moved apart."""
    limits = ops.constant([kept]), ops.constant(np.array([overlap], np.float32))
    chosen = ops.add("NonMaxSuppression", moved, ops.shaped(values, 1, kept), *limits)
    places = ops.add("Gather", chosen, ops.constant([0, 2]), axis=1)
    number = ops.add("Reshape", ops.add("Gather", chosen, ops.constant([1]), axis=1), ops.constant([-1]))
    ones = ops.add("Add", ops.floats(number), ops.constant(1.0))  # the only class of each is 0
    keep = ops.add("ScatterND", ops.add("Mul", values, ops.constant(0.0)), places, ones)
    sign = ops.add("Sub", ops.add("Mul", keep, ops.constant(2.0)), ops.constant(1.0))
    return ops.add("Mul", values, sign)
