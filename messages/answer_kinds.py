"""What an application answers, as its manifest declares it.

A classification or multi-label answer is merged of logits, also where branches each know some classes. The
other kinds are made of the one tensor that the last stage gives, whose form is described here: what a network
gives is brought into this form by operators at its end, when it is added.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field

from splitplace.messages.base import Part, Ratio
from splitplace.messages.limits import MAX_BATCH, MAX_FINDING_BYTES, MAX_FOUND, MAX_FOUND_VALUES
from splitplace.messages.tensors import TensorSpec

Kind = Literal[
    "classification", "multi-label", "detection", "segmentation", "embedding", "sequence", "tensors"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

MERGED_KINDS: frozenset[Kind] = frozenset({"classification", "multi-label"})
"""Kinds that are merged of the logits of several branches."""
PLACED_KINDS: frozenset[Kind] = frozenset({"detection", "segmentation"})
"""Kinds whose answers name places on the picture."""

OBJECT_NUMBERS = 6
"""Numbers of a candidate: left, top, right, bottom, confidence, class."""
SYMBOL_NUMBERS = 2
"""Numbers of a step of a sequence: the best symbol and its probability."""
MOST_CANDIDATES = 1000
MOST_PIXELS = 4 << 20
_MAP_AXES = 2
_MOST_MAPS = 64


class Classification(Part):
    """One of the labels."""

    kind: Literal["classification"] = "classification"
    top: Annotated[int, Field(ge=1, le=1000)] = 1
    """Classes that an answer names, the best first; a task of many inputs gets fewer."""


class MultiLabel(Part):
    """Any number of the labels, each with a probability of its own."""

    kind: Literal["multi-label"] = "multi-label"
    threshold: Ratio = 0.5
    """Probability from which a label is part of the answer."""


class Detection(Part):
    """Boxes with labels. The last stage gives `float32[candidates, 6]`, in pixels of its input.

    Each candidate is left, top, right, bottom, confidence, class; the confidence of those that are suppressed
    by a better one is below 0.
    """

    kind: Literal["detection"] = "detection"
    threshold: Ratio = 0.25
    """Confidence from which a candidate is part of the answer."""
    most: Annotated[int, Field(ge=1, le=MOST_CANDIDATES)] = 100
    """Objects in the answer for one input; a task of many inputs gets fewer."""


class Segmentation(Part):
    """A map of classes. The last stage gives `uint8[height, width]`."""

    kind: Literal["segmentation"] = "segmentation"


class Embedding(Part):
    """A vector. The last stage gives `float32[values]`."""

    kind: Literal["embedding"] = "embedding"


class Sequence(Part):
    """A text in the symbols of `labels`. The last stage gives `float32[steps, 2]`: symbol and probability."""

    kind: Literal["sequence"] = "sequence"
    blank: Annotated[int, Field(ge=0, le=100_000)] = 0
    """The symbol that means none, and that stands between two that are alike (CTC)."""


class Tensors(Part):
    """The outputs of the network as they are."""

    kind: Literal["tensors"] = "tensors"


AnswerKind: TypeAlias = Annotated[
    Classification | MultiLabel | Detection | Segmentation | Embedding | Sequence | Tensors,
    Field(discriminator="kind"),
]


def form_problem(answer: AnswerKind, outputs: Mapping[str, TensorSpec], labels: int) -> str:
    """Return why outputs are not what answers of this kind are made of; empty if they are.

    Args:
        answer: The declaration.
        outputs: The tensors that the last stage gives, as the manifest names them.
        labels: Number of labels.
    """
    if answer.kind in MERGED_KINDS:
        return f"{answer.kind} is made of logits: leave out outputs" if outputs else ""
    if isinstance(answer, Tensors):
        return "" if outputs else "tensors needs outputs"
    if len(outputs) != 1:
        return f"{answer.kind} is made of one output, not {len(outputs)}"
    (spec,) = outputs.values()
    if not _fits(answer, spec):
        return f"{answer.kind} cannot be made of {spec.dtype} {list(spec.shape)}"
    if isinstance(answer, Sequence) and answer.blank >= labels:
        return f"the blank {answer.blank} is none of {labels} symbols"
    return "" if labels or isinstance(answer, Embedding) else f"{answer.kind} needs labels"


def _fits(answer: AnswerKind, spec: TensorSpec) -> bool:
    shape = spec.shape
    match answer:
        case Detection():
            return (
                spec.dtype == "float32"
                and len(shape) == _MAP_AXES
                and shape[1] == OBJECT_NUMBERS
                and (shape[0] <= MOST_CANDIDATES)
            )
        case Segmentation():
            return spec.dtype == "uint8" and len(shape) == _MAP_AXES and shape[0] * shape[1] <= MOST_PIXELS
        case Embedding():
            return spec.dtype == "float32" and len(shape) == 1 and shape[0] <= MAX_FOUND_VALUES
        case Sequence():
            return (
                spec.dtype == "float32"
                and len(shape) == _MAP_AXES
                and shape[1] == SYMBOL_NUMBERS
                and (shape[0] <= MAX_FOUND)
            )
    return False


def most_inputs(answer: AnswerKind, outputs: Mapping[str, TensorSpec]) -> int:
    """Return how many inputs a task may have so that their answers fit into one message; 0 if none does."""
    if isinstance(answer, Tensors):
        each = sum(spec.bytes_per_image for spec in outputs.values())
        return min(MAX_BATCH, MAX_FINDING_BYTES // max(1, each))
    if answer.kind in MERGED_KINDS or not outputs:
        return MAX_BATCH
    (spec,) = outputs.values()
    if isinstance(answer, Embedding):
        return min(MAX_BATCH, MAX_FOUND_VALUES // spec.shape[0])
    if isinstance(answer, Sequence):
        return min(MAX_BATCH, max(1, MAX_FOUND_VALUES // spec.shape[0]))
    return _MOST_MAPS if isinstance(answer, Segmentation) else MAX_BATCH
