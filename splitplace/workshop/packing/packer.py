"""Pack exported networks as an application of the model store, with measured variants."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import onnx
from pydantic import TypeAdapter

from splitplace.edge_node.runtime import FragmentRuntime, load_stage
from splitplace.errors import SplitPlaceError
from splitplace.messages.answer_kinds import AnswerKind
from splitplace.messages.application import (
    INPUT,
    Application,
    Fragment,
    Scores,
    Stage,
    Variant,
    VariantKind,
)
from splitplace.messages.limits import MAX_STAGES
from splitplace.messages.pictures import PictureInput
from splitplace.messages.pieces import NamedChain, SeveralTensors
from splitplace.messages.sound import SoundInput
from splitplace.messages.states import StateTensor
from splitplace.messages.tensors import TensorSpec
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.cutting.profile import reference_score
from splitplace.workshop.datasets import Subset
from splitplace.workshop.onnx.graph import Graph, without_weights
from splitplace.workshop.onnx.narrow import Storage, narrowed
from splitplace.workshop.packing.description import described, timed, with_costs
from splitplace.workshop.packing.evaluation import Measured, equal_logits, is_cut_whole, measure
from splitplace.workshop.packing.memory import with_memory
from splitplace.workshop.packing.telling import Told, tell_nobody
from splitplace.workshop.packing.unfinished import NOTHING, Unfinished
from splitplace.workshop.pieces.chain import MeasuredNetwork, measured, timed_chain, write_files
from splitplace.workshop.pieces.cut import cut_numbers
from splitplace.workshop.pieces.places import Cut

MICRO_BATCH = 16
"""Images per micro-batch: 4 to 16 keep a pipeline of small pictures busy."""


class PackingError(SplitPlaceError):
    """The application would answer wrongly and is not written."""


@dataclass(frozen=True)
class Heading:
    """General fields of an application."""

    name: str
    title: str
    labels: tuple[str, ...]
    input: TensorSpec
    default_deadline_ms: float = 1000.0
    scores: Scores = "softmax"
    unknown_below: float = 0.0
    pictures: PictureInput | None = None
    sound: SoundInput | None = None
    answer: AnswerKind | None = None
    outputs: SeveralTensors = ()
    inputs: SeveralTensors = ()
    """All inputs, where there are several; `input` is the first."""
    states: tuple[StateTensor, ...] = ()
    caution: str = ""


class Packer:
    """Collect networks in pieces, and variants that group them. Files are written as they are made."""

    def __init__(
        self,
        heading: Heading,
        folder: Path,
        micro_batch: int = MICRO_BATCH,
        storage: Storage = "float32",
        told: Told = tell_nobody,
    ) -> None:
        """Begin an application.

        Args:
            heading: Its general fields.
            folder: Folder for the files of pieces, each named by its hash.
            micro_batch: Images per micro-batch.
            storage: Type in which files hold large weights.
            told: Function that is told what is being done.
        """
        self.heading = heading
        self.folder = folder
        self.micro_batch = micro_batch
        self.storage = storage
        self.variants: list[Variant] = []
        self._told = told
        self._chains: dict[str, NamedChain] = {}
        self._wholes: dict[str, Graph] = {}
        self._fragments: dict[str, Fragment] = {}
        self._every_class = () if heading.outputs else tuple(range(len(heading.labels)))

    def add_network(self, name: str, model: onnx.ModelProto, cuts: Collection[Cut] = ()) -> None:
        """Cut a network into pieces and write them.

        Args:
            name: Name of the chain.
            model: Its inputs and outputs are batches.
            cuts: Where variants will cut it.

        Raises:
            PieceCutError: It cannot be cut there, or a piece is larger than a node accepts.
            GraphError: The graph does not tell a shape or size that is needed.
        """
        self._told(f"timing the layers of {name}")
        self.add_measured(name, measured(narrowed(model, self.storage)), cuts)

    def add_measured(
        self, name: str, network: MeasuredNetwork, cuts: Collection[Cut] = (), *, only: bool = False
    ) -> None:
        """Cut a network whose layers are timed already; with `only`, nowhere else. See `add_network`."""
        chain = timed_chain(network, cuts, only=only)
        self._told(f"writing {name} in {len(chain.cut.files)} pieces")
        write_files(self.folder, chain.cut)
        whole = Graph(without_weights(network.model))
        self._wholes[name] = whole
        self._chains[name] = with_costs(self.folder, name, chain, whole)

    def add_single(self, name: str, kind: VariantKind, network: str | None = None) -> None:
        """Add a variant that is a whole network on one node; by default the network of its name."""
        self._add(name, kind, [self._stage(name, network or name, (), INPUT, self._every_class)])

    def add_exit(self, name: str, model: onnx.ModelProto, network: str) -> None:
        """Add a variant that is the beginning of a network with a head of its own: an early exit.

        Its pieces are those of the network, up to the exit, and one of its own, so nodes store what both
        share once. Placements may group them.

        Args:
            name: Name of the variant and of its chain.
            model: The network up to the exit, whose tensors have the names that they have in the network.
            network: Name of the network; it was added with a cut at `exit_place` of the model.

        Raises:
            PackingError: The pieces before the exit are not those of the network.
        """
        whole = self._chains[network].chain
        crossing = [tuple(tensor.name for tensor in bundle) for bundle in whole.bundles[1:-1]]
        last = exit_place(model)
        if (last,) not in crossing:
            raise PackingError(f"{name}: {network} is not cut at {last}")
        places = crossing[: crossing.index((last,)) + 1]
        self._told(f"timing the layers of {name}")
        self.add_measured(name, measured(narrowed(model, self.storage)), places, only=True)
        shared = self._chains[name].chain.pieces[: len(places)]
        if shared != whole.pieces[: len(places)]:
            raise PackingError(f"{name}: its pieces differ from those of {network}")
        self._add(name, "early-exit", [self._stage(name, name, (), INPUT, self._every_class)], MAX_STAGES)

    def add_chain(self, name: str, network: str, cuts: Sequence[Cut], most_stages: int | None = None) -> None:
        """Add a variant that is a network cut at some of the tensors that it was added with.

        Args:
            name: Name of the variant.
            network: Name of the network.
            cuts: What crosses between its stages.
            most_stages: Stages into which placements may group its pieces anew; None = never.
        """
        chain = self._chains[network].chain
        ends = (0, *cut_numbers(chain, cuts), len(chain.pieces))
        stages = [
            self._stage(
                f"{name}-{index}",
                network,
                run,
                f"{name}-{index - 1}" if index else INPUT,
                self._every_class if index == len(cuts) else (),
            )
            for index, run in enumerate(pairwise(ends))
        ]
        self._add(name, "layer", stages, most_stages)

    def add_branches(
        self, name: str, models: Sequence[onnx.ModelProto], groups: Sequence[tuple[int, ...]]
    ) -> None:
        """Add a variant of networks that all read the input and each own a group of the classes."""
        stages = []
        for index, (model, classes) in enumerate(zip(models, groups, strict=True)):
            network = f"{name}-{index}"
            self.add_network(network, model)
            stages.append(self._stage(f"branch-{index}", network, (), INPUT, classes))
        self._add(name, "semantic", stages)

    def fragment(self, network: str, first: int = 0, end: int | None = None) -> Fragment:
        """Describe a run of pieces of a network; its times are still 0."""
        chain, whole = self._chains[network], self._wholes[network]
        return described(self.folder, chain, first, end, micro_batch=self.micro_batch, whole=whole)

    def load(self, fragment: Fragment) -> FragmentRuntime:
        """Load a fragment from the files written so far."""
        chain = self._chains[fragment.chain or ""].chain
        return load_stage(chain.stage(fragment.first, fragment.end), self.folder)

    def draft(self) -> Application:
        """Return the application as far as it is known: times and accuracies are still 0."""
        return Application(
            name=self.heading.name,
            title=self.heading.title,
            input=self.heading.input,
            labels=self.heading.labels,
            default_deadline_ms=self.heading.default_deadline_ms,
            scores=self.heading.scores,
            unknown_below=self.heading.unknown_below,
            pictures=self.heading.pictures,
            sound=self.heading.sound,
            answer=self.heading.answer,
            outputs=self.heading.outputs,
            inputs=self.heading.inputs,
            states=self.heading.states,
            caution=self.heading.caution,
            reference_score=0.0,
            variants=tuple(self.variants),
            fragments=tuple(self._fragments.values()),
            chains=tuple(self._chains.values()),
        )

    def contents(self) -> Iterator[bytes]:
        """Yield the content of every file, one at a time."""
        return ((self.folder / file.sha256).read_bytes() for file in self.draft().files)

    def _stage(
        self, name: str, network: str, run: tuple[int, int] | tuple[()], source: str, classes: tuple[int, ...]
    ) -> Stage:
        fragment = self.fragment(network, *run)
        self._fragments.setdefault(fragment.sha256, fragment)
        return Stage(name=name, fragment=fragment.sha256, source=source, classes=classes)

    def _add(
        self, name: str, kind: VariantKind, stages: Sequence[Stage], most_stages: int | None = None
    ) -> None:
        variant = Variant(
            most_stages=most_stages,
            name=name,
            kind=kind,
            stages=tuple(stages),
            micro_batch=self.micro_batch,
            accuracy=0.0,
            accuracy_images=0,
        )
        self.variants.append(variant)


def exit_place(model: onnx.ModelProto) -> str:
    """Return the tensor at which a residual network up to an early exit is left: the last sum.

    Raises:
        PackingError: The network has no sum.
    """
    sums: list[str] = [node.output[0] for node in Graph(model).nodes if node.op_type == "Add"]
    if not sums:
        raise PackingError("the network up to the exit has no residual connection")
    return sums[-1]


def pack(
    packer: Packer,
    store: ModelStore,
    test: Subset,
    told: Told = tell_nobody,
    *,
    keep_previous: bool = False,
    kept: Unfinished = NOTHING,
) -> tuple[Application, tuple[Measured, ...]]:
    """Measure the files to be written on the test images, and write the application.

    Args:
        packer: What was packed.
        store: Where it is written.
        test: Images with labels.
        told: What hears of progress.
        keep_previous: Whether the application that it replaces can be brought back.
        kept: What an interrupted run has measured, and this one measures.

    Raises:
        PackingError: A chain's logits differ from those of the whole network.
    """
    draft = timed_draft(packer, told, kept)
    results = measured_on(packer, draft, test, told, kept)
    application = with_accuracies(draft, results)
    store.save(application, packer.contents(), keep_previous=keep_previous)
    return application, results


def timed_draft(packer: Packer, told: Told = tell_nobody, kept: Unfinished = NOTHING) -> Application:
    """Return the application with its fragments measured on this machine; its accuracies are still 0."""
    told("measuring the speed of this machine")
    score = kept.once("score", None, TypeAdapter(float), reference_score)
    draft = timed(packer.draft(), packer.load, score, told, kept)
    return with_memory(draft, packer.folder, told, kept)


def measured_on(
    packer: Packer,
    draft: Application,
    images: Subset,
    told: Told = tell_nobody,
    kept: Unfinished = NOTHING,
) -> tuple[Measured, ...]:
    """Run every variant from its files. Raise PackingError if a chain does not equal the whole."""
    results = measure(draft, packer.load, images, told, kept)
    check_chains(draft, results)
    return results


def check_chains(draft: Application, results: Sequence[Measured]) -> None:
    """Raises `PackingError` unless the logits of every layer chain equal those of the whole network."""
    for variant, result in zip(draft.variants, results, strict=True):
        if is_cut_whole(variant) and not result.difference_from_whole <= equal_logits(draft):
            raise PackingError(
                f"{variant.name}: the chain's logits differ from the whole network's "
                f"by {result.difference_from_whole:.2e}"
            )


def with_accuracies(draft: Application, results: Sequence[Measured]) -> Application:
    """Return the application with measured accuracies, for each variant and each last stage."""
    variants = []
    for variant, result in zip(draft.variants, results, strict=True):
        by_sink = dict(zip((stage.name for stage in variant.sinks), result.sink_accuracy, strict=True))
        stages = tuple(
            stage.model_copy(update={"accuracy": by_sink.get(stage.name)}) for stage in variant.stages
        )
        update = {"stages": stages, "accuracy": result.accuracy, "accuracy_images": result.images}
        variants.append(variant.model_copy(update=update))
    return draft.model_copy(update={"variants": tuple(variants)})


def with_stated_accuracy(draft: Application, accuracy: float) -> Application:
    """Return the application with an accuracy stated by its maker, recorded as measured on 0 images."""
    variants = tuple(
        variant.model_copy(update={"accuracy": accuracy, "accuracy_images": 0}) for variant in draft.variants
    )
    return draft.model_copy(update={"variants": variants})
