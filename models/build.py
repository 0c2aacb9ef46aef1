"""Builds an application: train, split, export, verify, measure, pack.

`python -m models.build mnist --data DIR --store DIR`
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.progress import Progress

from bus.store import ModelStore, sha256_of
from messages.application import INPUT, Application, Stage, TensorSpec, Variant
from models.balance import Target
from models.datasets import SIDE, Dataset, DatasetError, load_mnist
from models.export import export_network, file_content
from models.layer_split import CutError, balanced_chain, cut, cut_points
from models.profile import describe, reference_score, segment_times
from models.report import training_report, variants_table
from models.train import CLASSES, Trained, train_all
from models.training import Schedule
from models.variants import EQUAL_LOGITS, Measured, measure

MICRO_BATCH = 16
"""Images in a micro-batch: 4 to 16 keep a pipeline of small pictures busy."""
DEFAULT_DEADLINE_MS = 1000.0


class BuildError(Exception):
    """A build whose result must not be used."""


@dataclass(frozen=True)
class Settings:
    """What a build depends on, besides the data."""

    schedule: Schedule
    stages: int = 3
    branches: int = 3


def build_mnist(
    data: Dataset, settings: Settings, store: ModelStore, checkpoints: Path, progress: Progress
) -> tuple[Application, tuple[Measured, ...], Trained]:
    """Trains MNIST's networks, splits them and writes the application into the store.

    The test images are used once, at the end, on the files that were written.

    Raises:
        BuildError: The chain does not give the answers of the whole network.
        CutError: The whole network cannot be cut into so many stages.
    """
    trained = train_all(
        data,
        settings.schedule,
        branches=settings.branches,
        checkpoints=checkpoints,
        progress=progress,
    )
    return (*package_mnist(data, trained, settings, store, progress.console), trained)


def package_mnist(
    data: Dataset, trained: Trained, settings: Settings, store: ModelStore, console: Console
) -> tuple[Application, tuple[Measured, ...]]:
    """Splits, exports, measures and writes trained networks."""
    example = np.zeros((2, 1, SIDE, SIDE), np.uint8)
    whole = export_network(trained.whole, example)
    points = cut_points(whole)
    segment_ms = segment_times(cut(whole, [point.tensor for point in points]), MICRO_BATCH)
    chain = balanced_chain(whole, points, segment_ms, settings.stages, Target())
    branches = [export_network(branch, example) for branch in trained.branches.branches]

    packer = _Packer()
    every_class = tuple(range(CLASSES))
    variants = (
        packer.variant("whole", packer.stage("whole", whole, INPUT, every_class)),
        packer.variant(
            "layer",
            *(
                packer.stage(
                    f"layer-{index}",
                    model,
                    f"layer-{index - 1}" if index else INPUT,
                    every_class if index == len(chain) - 1 else (),
                )
                for index, model in enumerate(chain)
            ),
        ),
        packer.variant(
            "semantic",
            *(
                packer.stage(f"branch-{index}", model, INPUT, classes)
                for index, (model, classes) in enumerate(zip(branches, trained.groups, strict=True))
            ),
        ),
    )
    draft = Application(
        name="mnist",
        title="Handwritten digits (MNIST)",
        input=TensorSpec(dtype="uint8", shape=(1, SIDE, SIDE)),
        labels=tuple(str(digit) for digit in every_class),
        default_deadline_ms=DEFAULT_DEADLINE_MS,
        reference_score=round(reference_score(), 2),
        variants=variants,
        fragments=describe(list(packer.models.values()), MICRO_BATCH),
    )
    contents = [file_content(model) for model in packer.models.values()]
    console.print("measuring every variant's files on the test images")
    with tempfile.TemporaryDirectory() as folder:
        trial = ModelStore(Path(folder))
        trial.save(draft, contents)
        results = measure(draft, trial.fragment_path, data.test)
    check_chain(results)
    application = draft.model_copy(
        update={
            "variants": tuple(
                variant.model_copy(update={"accuracy": result.accuracy, "accuracy_images": result.images})
                for variant, result in zip(variants, results, strict=True)
            )
        }
    )
    store.save(application, contents)
    return application, results


def check_chain(results: Sequence[Measured]) -> None:
    """Raises `BuildError` unless the chain's logits equal those of the whole network."""
    for result in results:
        if result.variant == "layer" and not result.difference_from_whole <= EQUAL_LOGITS:
            msg = f"the chain's logits differ from the whole network's by {result.difference_from_whole:.2e}"
            raise BuildError(msg)


class _Packer:
    """Collects the fragments of the variants; each is kept once, however many stages use it."""

    def __init__(self) -> None:
        self.models: dict[str, onnx.ModelProto] = {}

    def stage(self, name: str, model: onnx.ModelProto, source: str, classes: tuple[int, ...]) -> Stage:
        sha256 = sha256_of(file_content(model))
        self.models[sha256] = model
        return Stage(name=name, fragment=sha256, source=source, classes=classes)

    @staticmethod
    def variant(name: str, *stages: Stage) -> Variant:
        """A variant that is not measured yet."""
        return Variant(name=name, stages=stages, micro_batch=MICRO_BATCH, accuracy=0.0, accuracy_images=0)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m models.build", description=__doc__)
    parser.add_argument("application", choices=["mnist"])
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz or the IDX files")
    parser.add_argument("--store", type=Path, default=Path("store"), help="model store to write into")
    parser.add_argument("--checkpoints", type=Path, default=Path("var/models"), help="to resume a training")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", type=int, default=3, help="fragments of the chain")
    parser.add_argument("--branches", type=int, default=3, help="semantic branches")
    arguments = parser.parse_args(argv)
    settings = Settings(Schedule(arguments.epochs, arguments.seed), arguments.stages, arguments.branches)
    torch.set_num_threads(1)
    console = Console()
    try:
        data = load_mnist(arguments.data)
        with Progress(console=console) as progress:
            application, results, trained = build_mnist(
                data, settings, ModelStore(arguments.store), arguments.checkpoints / "mnist", progress
            )
    except (DatasetError, BuildError, CutError) as error:
        console.print(f"error: {error}", style="red")
        return 1
    report = arguments.store / application.name / "TRAINING.md"
    report.write_text(training_report(application, results, trained, settings.schedule), "utf-8")
    console.print(variants_table(application, results))
    console.print(f"written: {arguments.store / application.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
