"""What is kept of an output until its task is complete, by the kind of the answer. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

from splitplace.messages.answer_kinds import MERGED_KINDS, Classification, MultiLabel
from splitplace.messages.application import Application
from splitplace.messages.findings import (
    Finding,
    FoundLabels,
    FoundObjects,
    FoundRegions,
    FoundTensors,
    FoundVector,
)
from splitplace.messages.frames import FrameError, TensorHeader
from splitplace.messages.limits import MAX_FOUND
from splitplace.messages.task import ClassScore
from splitplace.services.result_aggregator import several_classes
from splitplace.services.result_aggregator.finding import findings
from splitplace.services.result_aggregator.merging import Condensed, class_scores, condense

_BYTES_OF_A_FINDING = 4096
"""A generous guess for Python objects, without long lists and arrays."""
_BYTES_OF_AN_OBJECT = 1024
_BYTES_OF_A_VALUE = 32


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in the inputs of an output that is not merged."""

    findings: tuple[Finding | None, ...]

    @property
    def rows(self) -> int:
        """Number of inputs."""
        return len(self.findings)

    @property
    def columns(self) -> int:
        """Number of classes that a branch must cover: none."""
        return 0

    @property
    def nbytes(self) -> int:
        """About the bytes that it takes."""
        return sum(map(_bytes_of, self.findings))

    @property
    def finite_rows(self) -> int:
        """Number of inputs whose outputs are finite."""
        return sum(finding is not None for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Unread:
    """An output whose application is not known yet."""

    arrays: Sequence[NDArray[Any]]
    """Its tensors, in the order of the header."""

    @property
    def nbytes(self) -> int:
        """Bytes of the output."""
        return sum(array.nbytes for array in self.arrays)


Kept: TypeAlias = Condensed | several_classes.Logits | Found


def _bytes_of(finding: Finding | None) -> int:
    match finding:
        case FoundRegions(png=png):
            return _BYTES_OF_A_FINDING + len(png)
        case FoundTensors(tensors=tensors):
            return _BYTES_OF_A_FINDING + sum(len(each.data) for each in tensors)
        case FoundVector(values=values):
            return _BYTES_OF_A_FINDING + _BYTES_OF_A_VALUE * len(values)
        case FoundObjects(objects=found) | FoundLabels(labels=found):
            return _BYTES_OF_A_FINDING + _BYTES_OF_AN_OBJECT * len(found)
    return _BYTES_OF_A_FINDING


def fits(output: Kept, application: Application) -> bool:
    """Whether this is how outputs of an application are kept: it may have been replaced meanwhile."""
    answers = application.answers
    if answers.kind not in MERGED_KINDS:
        return isinstance(output, Found)
    is_winner_enough = isinstance(answers, Classification) and answers.top == 1
    return isinstance(output, Condensed if is_winner_enough else several_classes.Logits)


def keep(header: TensorHeader, arrays: Sequence[NDArray[Any]], application: Application) -> Kept:
    """Return what an answer needs of an output.

    Args:
        header: That of its frame.
        arrays: Its tensors, in the order of the header.
        application: The manifest.

    Raises:
        FrameError: It is not what the last stages of the application give.
    """
    answers = application.answers
    if answers.kind not in MERGED_KINDS:
        # A single tensor travels without its name.
        names = [tensor.name or application.outputs[0].name for tensor in header.tensors]
        rows = len(arrays[0]) if arrays[0].ndim else 0
        return Found(
            findings(dict(zip(names, arrays, strict=True)), application, header.micro_batches * rows)
        )
    if len(arrays) > 1:
        raise FrameError(f"{len(arrays)} tensors, expected one of classes")
    (array,) = arrays
    if isinstance(answers, Classification) and answers.top == 1:
        return condense(array)
    return several_classes.kept(array)


def merge(
    parts: Sequence[tuple[Sequence[int], Kept]], application: Application, coverage: float, inputs: int
) -> Sequence[ClassScore | Finding | None]:
    """Merge what is kept of the outputs of one micro-batch.

    Args:
        parts: For each output, the class of each of its columns, and what is kept of it; of the same rows.
        application: The manifest.
        coverage: Share of all classes that the parts have, in (0, 1].
        inputs: Number of inputs of the whole task, which share the room of an answer.
    """
    answers = application.answers
    if answers.kind not in MERGED_KINDS:
        return [finding for _, output in parts if isinstance(output, Found) for finding in output.findings]
    condensed = [(columns, output) for columns, output in parts if isinstance(output, Condensed)]
    if condensed:
        return class_scores(condensed, coverage, application.scores)
    logits = [(columns, output) for columns, output in parts if isinstance(output, several_classes.Logits)]
    shares = several_classes.probabilities(logits, len(application.labels), application.scores)
    room = max(1, MAX_FOUND // inputs)
    if isinstance(answers, MultiLabel):
        return several_classes.reached(shares, answers.threshold, application.labels, room)
    top = answers.top if isinstance(answers, Classification) else 1
    return several_classes.best_classes(shares, min(top, room))
