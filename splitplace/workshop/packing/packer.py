"""Pack exported networks as an application of the model store, with measured variants."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import INPUT, Application, Stage, TensorSpec, Variant, VariantKind
from splitplace.storage.model_store import ModelStore, sha256_of
from splitplace.workshop.cutting.profile import describe, reference_score
from splitplace.workshop.datasets import Subset
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.onnx.narrow import Storage, narrowed
from splitplace.workshop.packing.evaluation import EQUAL_LOGITS, Measured, is_cut_whole, measure

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


class Packer:
    """Collect variants and their fragments. A fragment is kept once, however many stages use it."""

    def __init__(
        self, heading: Heading, micro_batch: int = MICRO_BATCH, storage: Storage = "float32"
    ) -> None:
        self.heading = heading
        self.micro_batch = micro_batch
        self.storage = storage
        self.variants: list[Variant] = []
        self._fragments: dict[str, tuple[onnx.ModelProto, bytes]] = {}
        self._every_class = tuple(range(len(heading.labels)))

    def add_single(self, name: str, kind: VariantKind, model: onnx.ModelProto) -> None:
        """Add a variant with one fragment."""
        self._add(name, kind, [self._stage(name, model, INPUT, self._every_class)])

    def add_chain(self, name: str, models: Sequence[onnx.ModelProto]) -> None:
        """Add a variant whose fragments form a chain."""
        stages = [
            self._stage(
                f"{name}-{index}",
                model,
                f"{name}-{index - 1}" if index else INPUT,
                self._every_class if index == len(models) - 1 else (),
            )
            for index, model in enumerate(models)
        ]
        self._add(name, "layer", stages)

    def add_branches(
        self, name: str, models: Sequence[onnx.ModelProto], groups: Sequence[tuple[int, ...]]
    ) -> None:
        """Add a variant whose fragments all read the input and each own a group of the classes."""
        stages = [
            self._stage(f"branch-{index}", model, INPUT, classes)
            for index, (model, classes) in enumerate(zip(models, groups, strict=True))
        ]
        self._add(name, "semantic", stages)

    def draft(self) -> Application:
        """Return the application with measured fragments; its accuracies are still 0."""
        return Application(
            name=self.heading.name,
            title=self.heading.title,
            input=self.heading.input,
            labels=self.heading.labels,
            default_deadline_ms=self.heading.default_deadline_ms,
            reference_score=round(reference_score(), 2),
            variants=tuple(self.variants),
            fragments=describe(
                [model for model, _ in self._fragments.values()], self.micro_batch, self.contents
            ),
        )

    @property
    def contents(self) -> list[bytes]:
        """The fragments' files."""
        return [content for _, content in self._fragments.values()]

    def _stage(self, name: str, model: onnx.ModelProto, source: str, classes: tuple[int, ...]) -> Stage:
        content = file_content(narrowed(model, self.storage))
        sha256 = sha256_of(content)
        self._fragments[sha256] = (model, content)
        return Stage(name=name, fragment=sha256, source=source, classes=classes)

    def _add(self, name: str, kind: VariantKind, stages: Sequence[Stage]) -> None:
        variant = Variant(
            name=name,
            kind=kind,
            stages=tuple(stages),
            micro_batch=self.micro_batch,
            accuracy=0.0,
            accuracy_images=0,
        )
        self.variants.append(variant)


def pack(packer: Packer, store: ModelStore, test: Subset) -> tuple[Application, tuple[Measured, ...]]:
    """Measure the files to be written on the test images, and write the application.

    Raises:
        PackingError: A chain's logits differ from those of the whole network.
    """
    draft, contents = packer.draft(), packer.contents
    results = measured_on(draft, contents, test)
    application = with_accuracies(draft, results)
    store.save(application, contents)
    return application, results


def measured_on(draft: Application, contents: Sequence[bytes], images: Subset) -> tuple[Measured, ...]:
    """Run every variant from its files. Raise PackingError if a chain does not equal the whole."""
    with tempfile.TemporaryDirectory() as folder:
        trial = ModelStore(Path(folder))
        trial.save(draft, contents)
        results = measure(draft, trial.file_path, images)
    check_chains(draft, results)
    return results


def check_chains(draft: Application, results: Sequence[Measured]) -> None:
    """Raises `PackingError` unless the logits of every layer chain equal those of the whole network."""
    for variant, result in zip(draft.variants, results, strict=True):
        if is_cut_whole(variant) and not result.difference_from_whole <= EQUAL_LOGITS:
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
