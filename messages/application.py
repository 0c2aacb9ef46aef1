"""What a sensor can name: an application, its variants, their stages and fragments.

A variant is an **out-tree** of stages: each stage reads either the task's input or the output of exactly
one other stage. A single stage (`whole`, `compressed`), a chain (`layer`) and a star (`semantic`) are three
shapes of that one type, so nodes, placer and aggregator know no variant names.
"""

from collections.abc import Iterator
from functools import cached_property
from math import prod
from typing import Annotated, Literal, NamedTuple, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from splitplace.messages.base import (
    Bytes,
    Count,
    Message,
    Milliseconds,
    Name,
    NonNegative,
    Part,
    Ratio,
    Sha256,
    Words,
    one_line,
)
from splitplace.messages.limits import MAX_BATCH, MAX_STAGES, MAX_TENSOR_BYTES, MAX_TENSOR_RANK

INPUT: Literal["input"] = "input"
"""The reserved `source` of a stage that reads the task's own input."""

DType = Literal["uint8", "int8", "float16", "float32"]
ITEM_BYTES: dict[str, int] = {"uint8": 1, "int8": 1, "float16": 2, "float32": 4}

VariantKind = Literal["whole", "layer", "semantic", "compressed", "int8"]
"""Family of a variant: the whole network, a chain of its layers, branches that each know a group of classes,
a network with less work, or the whole network in eight-bit integers."""

VARIANT_KINDS: tuple[VariantKind, ...] = get_args(VariantKind)

Dimension = Annotated[int, Field(ge=1, le=1 << 20)]
ClassIndex = Annotated[int, Field(ge=0, le=100_000)]
Label = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(one_line)]


class TensorSpec(Part):
    """Type and shape of one tensor of a batch, **without** the batch dimension."""

    dtype: DType
    shape: Annotated[tuple[Dimension, ...], Field(max_length=MAX_TENSOR_RANK)]

    @cached_property
    def bytes_per_image(self) -> int:
        """Size of one batch item in bytes."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


class StoredFile(NamedTuple):
    """A file of the model store, as nodes fetch and keep it."""

    sha256: str
    """Its name: the SHA-256 of its content."""
    file_bytes: int
    """Its size."""


class Fragment(Part):
    """What a node runs for a stage: an ONNX file named by its SHA-256, with one input and one output.

    A call on n images costs `milliseconds_per_call + n * milliseconds_per_image`. Both are measured in one
    thread on a device of score `Application.reference_score`. A node of score s takes
    `reference_score / s` as long.
    """

    sha256: Sha256
    file_bytes: Bytes
    weight_bytes: Bytes
    peak_memory_bytes: Bytes
    """Weights plus the largest live activations of one micro-batch: what a node reserves for it."""
    flops_per_image: NonNegative
    milliseconds_per_image: Milliseconds
    milliseconds_per_call: Milliseconds
    input: TensorSpec
    output: TensorSpec

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """What a node needs on its disk to load the fragment: today one file of the same hash."""
        return (StoredFile(self.sha256, self.file_bytes),)


class Stage(Part):
    """One vertex of a variant's out-tree."""

    name: Name
    fragment: Sha256
    source: Name
    """`input`, or the name of the stage whose output this one reads."""
    classes: Annotated[tuple[ClassIndex, ...], Field(max_length=100_000)] = ()
    """The class of each output column, for a stage that no other stage reads."""
    accuracy: Ratio | None = None
    """Share of right answers among the test images of its classes, if measured."""


class Variant(Part):
    """One way to run an application, with its accuracy on held-out data."""

    name: Name
    kind: VariantKind
    """Family it belongs to: policies and settings may name it instead of every variant."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=MAX_STAGES)]
    micro_batch: Annotated[int, Field(ge=1, le=MAX_BATCH)]
    """Images in one micro-batch: a batch is cut so that a chain runs as a pipeline."""
    accuracy: Ratio
    """Share of right answers on the held-out test set."""
    accuracy_images: Count
    """Number of test images it was measured on; 0 where the accuracy was only stated."""

    @property
    def roots(self) -> tuple[Stage, ...]:
        """Stages that read the task's input."""
        return self.children(INPUT)

    @property
    def sinks(self) -> tuple[Stage, ...]:
        """Stages whose output is part of the answer."""
        sources = {stage.source for stage in self.stages}
        return tuple(stage for stage in self.stages if stage.name not in sources)

    def children(self, name: str) -> tuple[Stage, ...]:
        """Stages that read the output of the stage `name`."""
        return tuple(stage for stage in self.stages if stage.source == name)

    @model_validator(mode="after")
    def _is_an_out_tree(self) -> Self:
        """Stages stand in topological order, so a source always comes before its readers."""
        seen: set[str] = {INPUT}
        for stage in self.stages:
            if stage.name in seen:
                raise ValueError(f"stage name {stage.name!r} is used twice or reserved")
            if stage.source not in seen:
                raise ValueError(
                    f"stage {stage.name!r} reads {stage.source!r}, which does not stand before it"
                )
            seen.add(stage.name)
        return self


class Application(Message):
    """The description of an application; retained on `application/<name>`.

    The on-disk manifest of the model store is the same document.
    """

    name: Name
    title: Words
    input: TensorSpec
    labels: Annotated[tuple[Label, ...], Field(min_length=2, max_length=100_000)]
    default_deadline_ms: Milliseconds
    """Deadline of a task that states none, such as a bare picture without a user property."""
    reference_score: NonNegative
    """Benchmark score of the device on which the fragments were timed."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1, max_length=32)]
    fragments: Annotated[tuple[Fragment, ...], Field(min_length=1, max_length=1024)]

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Every file of its fragments once, in the order of the fragments."""
        return tuple(dict.fromkeys(file for fragment in self.fragments for file in fragment.files))

    def variant(self, name: str) -> Variant:
        """Return the variant of that name. Raises KeyError."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    def fragment(self, sha256: str) -> Fragment:
        """Return the fragment of that hash. Raises KeyError."""
        for fragment in self.fragments:
            if fragment.sha256 == sha256:
                return fragment
        raise KeyError(sha256)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        """Names are unique, tensors fit from stage to stage, and the last stages cover every class once."""
        fragments = {fragment.sha256: fragment for fragment in self.fragments}
        names = {variant.name for variant in self.variants}
        if len(fragments) < len(self.fragments) or len(names) < len(self.variants):
            raise ValueError("a fragment or the name of a variant is given twice")
        for variant in self.variants:
            for stage, problem in self._problems(variant, fragments):
                raise ValueError(f"{variant.name}/{stage}: {problem}")
            covered = [index for stage in variant.sinks for index in stage.classes]
            if sorted(covered) != list(range(len(self.labels))):
                raise ValueError(
                    f"{variant.name}: its last stages must cover each of {len(self.labels)} classes once"
                )
        return self

    def _problems(self, variant: Variant, fragments: dict[str, Fragment]) -> Iterator[tuple[str, str]]:
        """Stages that cannot work, and why: found here, they fail when a manifest is read, not in a task."""
        outputs: dict[str, TensorSpec] = {INPUT: self.input}
        sinks = {stage.name for stage in variant.sinks}
        for stage in variant.stages:
            fragment = fragments.get(stage.fragment)
            if fragment is None:
                yield stage.name, f"fragment {stage.fragment[:12]} is not described"
                return
            if fragment.input != outputs[stage.source]:
                yield stage.name, f"reads {fragment.input}, but {stage.source} gives {outputs[stage.source]}"
            if stage.name in sinks and fragment.output.shape != (len(stage.classes),):
                yield stage.name, f"gives {fragment.output} for {len(stage.classes)} classes"
            largest = max(fragment.input.bytes_per_image, fragment.output.bytes_per_image)
            if largest * variant.micro_batch > MAX_TENSOR_BYTES:
                yield stage.name, f"a micro-batch of {variant.micro_batch} exceeds {MAX_TENSOR_BYTES} bytes"
            outputs[stage.name] = fragment.output
