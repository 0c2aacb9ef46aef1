"""What a sensor can name: an application, its variants, their stages and fragments.

A variant is an **out-tree** of stages: each stage reads either the task's input or the output of exactly
one other stage. A single stage (`whole`, `compressed`), a chain (`layer`) and a star (`semantic`) are three
shapes of that one type, so nodes, placer and aggregator know no variant names.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from splitplace.messages.answer_kinds import (
    MERGED_KINDS,
    AnswerKind,
    Classification,
    Tensors,
    form_problem,
    most_inputs,
)
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
from splitplace.messages.limits import (
    MAX_BATCH,
    MAX_BUNDLE_TENSORS,
    MAX_STAGES,
    MAX_STORED_PIECES,
    MAX_TENSOR_BYTES,
)
from splitplace.messages.measured_memory import MeasuredMemory
from splitplace.messages.pictures import PictureInput
from splitplace.messages.pieces import (
    ChainStage,
    NamedChain,
    SeveralTensors,
    StoredFile,
    as_described,
    bundle_bytes,
)
from splitplace.messages.sound import SoundInput
from splitplace.messages.states import StateTensor
from splitplace.messages.tensors import TensorSpec

INPUT: Literal["input"] = "input"
"""The reserved `source` of a stage that reads the task's own input."""

VariantKind = Literal["whole", "layer", "semantic", "compressed", "int8", "early-exit"]
"""Family of a variant: the whole network, a chain of its layers, branches that each know a group of classes,
a network with less work, the whole network in eight-bit integers, or its first layers with a head of their
own."""

VARIANT_KINDS: tuple[VariantKind, ...] = get_args(VariantKind)

Scores = Literal["softmax", "sigmoid"]
"""How confidences are made of logits: shares of one, or a probability for each class on its own."""

_FEWEST_LABELS = 2

ClassIndex = Annotated[int, Field(ge=0, le=100_000)]
Label = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(one_line)]


class Fragment(Part):
    """What a node runs for a stage: a run of pieces of a chain, from one bundle of tensors to another.

    A call on n images costs `milliseconds_per_call + n * milliseconds_per_image`. Both are measured in one
    thread on a device of score `Application.reference_score`. A node of score s takes
    `reference_score / s` as long.
    """

    sha256: Sha256
    """Its id: `ChainStage.sha256` of its pieces."""
    file_bytes: Bytes
    """Size of all its files."""
    weight_bytes: Bytes
    """Memory of its weights in a session."""
    peak_memory_bytes: Bytes
    """Weights plus the largest live activations of one micro-batch: what a node reserves for it."""
    flops_per_image: NonNegative
    milliseconds_per_image: Milliseconds
    milliseconds_per_call: Milliseconds
    input: TensorSpec
    """What it reads; the first of `inputs` where that is several tensors."""
    output: TensorSpec
    """What it hands on; the first of `outputs` where that is several tensors."""
    inputs: SeveralTensors = ()
    """All that it reads, where that is several tensors."""
    outputs: SeveralTensors = ()
    """All that it hands on, where that is several tensors."""
    chain: Name | None = None
    """Name of the chain that its pieces belong to; None in simulations, where no fragment has files."""
    first: Count = 0
    """Number of its first piece in the chain."""
    end: Count = 0
    """Number of the piece after its last one."""
    largest_weight_bytes: Bytes = 0
    """Memory of the largest of its weights; 0 = not known."""
    output_ratio: Ratio = 1.0
    """Share of its outputs that is left when nodes compress them; 1 where that was not measured."""
    memory: MeasuredMemory | None = None
    """What it takes, if that was measured; else it follows from its weights and tensors."""

    @property
    def input_bytes_per_image(self) -> int:
        """Bytes of all that it reads for one image."""
        return bundle_bytes(self.inputs) if self.inputs else self.input.bytes_per_image

    @property
    def output_bytes_per_image(self) -> int:
        """Bytes of all that it hands on for one image."""
        return bundle_bytes(self.outputs) if self.outputs else self.output.bytes_per_image


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
    most_stages: Annotated[int, Field(ge=1, le=MAX_STAGES)] | None = None
    """Stages into which a placement may group the pieces of its chain anew, at most. Its own stages are one
    such grouping. None = its stages are fixed."""

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
    """What a task brings for each input; the first of `inputs` where that is several tensors."""
    inputs: SeveralTensors = ()
    """All that a task brings, by name, where that is several. A picture without a name is for the first."""
    outputs: SeveralTensors = ()
    """The tensors of an answer; empty where an answer is one of the labels."""
    states: Annotated[tuple[StateTensor, ...], Field(max_length=MAX_BUNDLE_TENSORS)] = ()
    """Tensors that the network hands to its own next call."""
    labels: Annotated[tuple[Label, ...], Field(max_length=100_000)]
    """Names of the classes; at least two unless there are `outputs`."""
    pictures: PictureInput | None = None
    """Preprocessing of pictures; None where it was not recorded (they are stretched), or for other inputs."""
    sound: SoundInput | None = None
    """Preprocessing of sound, that WAV files are taken with; None where it takes no sound."""
    answer: AnswerKind | None = None
    """The kind of its answers; None = a classification, or tensors where there are `outputs`."""
    scores: Scores = "softmax"
    """How the confidence of a class is made of the outputs of the last stages."""
    unknown_below: Ratio = 0.0
    """Confidence below which an answer's label is `unknown`."""
    caution: Words = ""
    """What every answer warns of, such as random weights; empty = nothing."""
    default_deadline_ms: Milliseconds
    """Deadline of a task that states none, such as a bare picture without a user property."""
    reference_score: NonNegative
    """Benchmark score of the device on which the fragments were timed."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1, max_length=32)]
    fragments: Annotated[tuple[Fragment, ...], Field(min_length=1, max_length=1024)]
    chains: Annotated[tuple[NamedChain, ...], Field(min_length=1, max_length=1024)]
    """Networks in pieces, that fragments are runs of."""

    @property
    def answers(self) -> AnswerKind:
        """The kind of its answers."""
        return self.answer or (Tensors() if self.outputs else Classification())

    @property
    def most_inputs(self) -> int:
        """Inputs that a task may have, so that their answers fit into one message."""
        return most_inputs(self.answers, {tensor.name: tensor.spec for tensor in self.outputs})

    @property
    def input_bytes_per_image(self) -> int:
        """Bytes of all that a task brings for one input."""
        return bundle_bytes(self.inputs) if self.inputs else self.input.bytes_per_image

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Every file of its chains once."""
        return tuple(
            dict.fromkeys(
                file for chain in self.chains for piece in chain.chain.pieces for file in piece.files
            )
        )

    def files_of(self, fragment: Fragment) -> tuple[StoredFile, ...]:
        """Return what a node needs on its disk to load a fragment, each file once. Raises KeyError."""
        return self.stage_of(fragment).files

    def stage_of(self, fragment: Fragment) -> ChainStage:
        """Return the pieces of a fragment. Raises KeyError if its chain is not here."""
        return self.chain(fragment.chain or "").chain.stage(fragment.first, fragment.end)

    def chain(self, name: str) -> NamedChain:
        """Return the chain of that name. Raises KeyError."""
        for chain in self.chains:
            if chain.name == name:
                return chain
        raise KeyError(name)

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
            if sorted(covered) != list(range(0 if self.outputs else len(self.labels))):
                raise ValueError(
                    f"{variant.name}: its last stages must cover each of {len(self.labels)} classes once"
                )
        return self

    @model_validator(mode="after")
    def _has_a_kind(self) -> Self:
        """Its outputs are what answers of its kind are made of, and branches can be merged."""
        outputs = {tensor.name: tensor.spec for tensor in self.outputs}
        if self.answer is not None and (problem := form_problem(self.answer, outputs, len(self.labels))):
            raise ValueError(problem)
        branched = next((variant.name for variant in self.variants if len(variant.sinks) > 1), None)
        if branched is not None and self.answers.kind not in MERGED_KINDS:
            raise ValueError(f"{branched}: answers of branches cannot be merged to {self.answers.kind}")
        return self

    @model_validator(mode="after")
    def _has_named_tensors(self) -> Self:
        """There is something to answer, and states are inputs and outputs of one type."""
        if len(self.labels) < _FEWEST_LABELS and not self.outputs:
            raise ValueError(f"{len(self.labels)} labels: an answer needs two to choose from, or outputs")
        if self.sound is not None and (problem := self.sound.problem(self.input)):
            raise ValueError(problem)
        inputs = {tensor.name: tensor.spec for tensor in self.inputs}
        outputs = {tensor.name: tensor.spec for tensor in self.outputs}
        for state in self.states:
            if state.input not in inputs or inputs[state.input] != outputs.get(state.output):
                raise ValueError(
                    f"state {state.input!r} is no input of the type of an output {state.output!r}"
                )
        return self

    @model_validator(mode="after")
    def _has_chains(self) -> Self:
        """Chains have different names, and every fragment is the run of pieces that its id says."""
        if len({chain.name for chain in self.chains}) < len(self.chains):
            raise ValueError("the name of a chain is given twice")
        if sum(len(chain.chain.pieces) for chain in self.chains) > MAX_STORED_PIECES:
            raise ValueError(f"more than {MAX_STORED_PIECES} pieces")
        if len({file.sha256 for file in self.files}) < len(self.files):
            raise ValueError("a file is given with two sizes")
        for fragment in self.fragments:
            self._check_run(fragment)
        for variant in self.variants:
            if variant.most_stages is not None:
                self._check_grouping(variant)
        return self

    def _check_run(self, fragment: Fragment) -> None:
        """Raise ValueError unless a fragment is the run of pieces that it says."""
        name = f"fragment {fragment.sha256[:12]}"
        try:
            stage = self.stage_of(fragment)
        except KeyError:
            raise ValueError(f"{name} belongs to a chain {fragment.chain!r} that is not described") from None
        ends = (stage.inputs, stage.outputs)
        if stage.sha256 != fragment.sha256:
            raise ValueError(f"{name} has another SHA-256 than its pieces")
        described = ((fragment.input, fragment.inputs), (fragment.output, fragment.outputs))
        if tuple(map(as_described, ends)) != described:
            raise ValueError(f"{name} has other inputs or outputs than its pieces")
        if sum(file.file_bytes for file in stage.files) != fragment.file_bytes:
            raise ValueError(f"{name} has another size than its files")

    def _check_grouping(self, variant: Variant) -> None:
        """Raise ValueError unless the stages of a variant are the pieces of one chain, in order."""
        runs = [self.fragment(stage.fragment) for stage in variant.stages]
        sources = [INPUT, *(stage.name for stage in variant.stages[:-1])]
        chain = runs[0].chain
        count = 0 if chain is None else len(self.chain(chain).chain.pieces)
        found = [(run.chain, place) for run in runs for place in range(run.first, run.end)]
        expected = [(chain, place) for place in range(count)]
        if not count or found != expected or [stage.source for stage in variant.stages] != sources:
            raise ValueError(f"{variant.name}: only the pieces of one chain, in order, can be grouped anew")

    def _problems(self, variant: Variant, fragments: dict[str, Fragment]) -> Iterator[tuple[str, str]]:
        """Stages that cannot work, and why: found here, they fail when a manifest is read, not in a task."""
        outputs: dict[str, tuple[TensorSpec, SeveralTensors]] = {INPUT: (self.input, self.inputs)}
        sinks = {stage.name for stage in variant.sinks}
        for stage in variant.stages:
            fragment = fragments.get(stage.fragment)
            if fragment is None:
                yield stage.name, f"fragment {stage.fragment[:12]} is not described"
                return
            reads, makes = (fragment.input, fragment.inputs), (fragment.output, fragment.outputs)
            if reads != outputs[stage.source]:
                given = outputs[stage.source]
                yield stage.name, f"reads {_told(*reads)}, but {stage.source} gives {_told(*given)}"
            if stage.name in sinks:
                yield from ((stage.name, problem) for problem in self._unlike_answer(stage, fragment))
            largest = max(fragment.input_bytes_per_image, fragment.output_bytes_per_image)
            if largest * variant.micro_batch > MAX_TENSOR_BYTES:
                yield stage.name, f"a micro-batch of {variant.micro_batch} exceeds {MAX_TENSOR_BYTES} bytes"
            outputs[stage.name] = makes

    def _unlike_answer(self, stage: Stage, fragment: Fragment) -> Iterator[str]:
        """Yield why a last stage does not give what answers are made of."""
        if not self.outputs:
            if fragment.output.shape != (len(stage.classes),) or fragment.outputs:
                gives = _told(fragment.output, fragment.outputs)
                yield f"gives {gives} for {len(stage.classes)} classes"
        elif (fragment.output, fragment.outputs) != as_described(self.outputs):
            yield f"gives {_told(fragment.output, fragment.outputs)} instead of the outputs"


def _told(first: TensorSpec, several: SeveralTensors) -> str:
    return ", ".join(f"{tensor.name}: {tensor.spec}" for tensor in several) or str(first)
