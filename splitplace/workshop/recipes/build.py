"""Build an application from its recipe: train, split, export, verify, measure, pack."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_STAGES
from splitplace.messages.tensors import TensorSpec
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.compression.bottleneck import bottlenecks
from splitplace.workshop.compression.quantization import quantize
from splitplace.workshop.datasets import PUBLISHED
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.narrow import narrowed
from splitplace.workshop.packing.evaluation import BOTTLENECK, Measured
from splitplace.workshop.packing.packer import Heading, Packer, exit_place, pack
from splitplace.workshop.packing.telling import Told
from splitplace.workshop.pieces.chain import balanced_cuts, measured
from splitplace.workshop.recipes.recipes import RecipePart
from splitplace.workshop.recipes.trainings import (
    Derived,
    Semantic,
    Whole,
    Workbench,
    train_bottleneck,
    train_compressed,
    train_semantic,
    train_whole,
)
from splitplace.workshop.training.loop import Epoch

CALIBRATION_IMAGES = 512
"""Number of validation images from which the ranges of eight-bit tensors are taken."""


@dataclass(frozen=True)
class Trained:
    """The trained networks of a recipe."""

    whole: Whole
    semantic: Semantic
    compressed: Derived | None
    """None if the recipe has no compressed variant."""
    bottleneck: Derived | None
    """None if the recipe has no bottlenecks."""

    @property
    def curves(self) -> dict[str, tuple[Epoch, ...]]:
        """Training curve of each network, by heading."""
        curves = {
            "Whole network": self.whole.curve,
            "Branches": self.semantic.curve,
        }
        if self.compressed is not None:
            curves["Compressed network"] = self.compressed.curve
        if self.bottleneck is not None:
            curves["Network with bottlenecks"] = self.bottleneck.curve
        return curves


def train_part(bench: Workbench, part: RecipePart) -> None:
    """Train one part, and before it the whole network, from which the other parts learn.

    Finished trainings are only read from their checkpoints.
    """
    whole = train_whole(bench)
    match part:
        case "whole":
            pass
        case "semantic":
            train_semantic(bench, whole.network)
        case "compressed":
            train_compressed(bench, whole.network)
        case "bottleneck":
            train_bottleneck(bench, whole.network)


@dataclass(frozen=True)
class Built:
    """A built application, with the measurements and curves for its training report."""

    application: Application
    results: tuple[Measured, ...]
    """Measurements of each variant, in the order of the application's variants."""
    curves: Mapping[str, tuple[Epoch, ...]]
    """Training curve of each network, by heading."""


def build(bench: Workbench, store: ModelStore) -> Built:
    """Train what is not trained yet, split it and write the application into the store.

    The test images are used once, at the end, on the files that are written.

    Raises:
        PackingError: A chain's logits differ from those of the whole network.
        CutError: The whole network cannot be cut into as many stages.
    """
    whole = train_whole(bench)
    trained = Trained(
        whole,
        semantic=train_semantic(bench, whole.network),
        compressed=train_compressed(bench, whole.network) if bench.recipe.compressed_schedule else None,
        bottleneck=train_bottleneck(bench, whole.network) if bench.recipe.bottlenecks else None,
    )
    told: Told = bench.progress.console.print
    with TemporaryDirectory(prefix="splitplace-") as folder:
        packer = fill(bench, trained, Path(folder), told)
        application, results = pack(packer, store, bench.data.test, told)
    return Built(application, results, trained.curves)


def fill(bench: Workbench, trained: Trained, folder: Path, told: Told) -> Packer:
    """Export every variant into a packer that writes into a folder.

    Raises:
        CutError: The whole network cannot be cut into as many stages.
    """
    recipe = bench.recipe
    shape = PUBLISHED[recipe.dataset].shape
    heading = Heading(
        name=recipe.name,
        title=recipe.title,
        labels=recipe.labels,
        input=TensorSpec(dtype="uint8", shape=shape),
        default_deadline_ms=recipe.default_deadline_ms,
    )
    packer = Packer(heading, folder, storage=recipe.storage, told=told)
    example = np.zeros((2, *shape), np.uint8)
    whole = export_network(trained.whole.network, example)
    told("timing the layers of whole")
    network = measured(narrowed(whole, recipe.storage))
    cuts = balanced_cuts(network, recipe.stages)
    exits = _exits(trained.whole, example)
    packer.add_measured("whole", network, [*cuts, *(exit_place(model) for model in exits)])
    packer.add_single("whole", "whole")
    packer.add_chain("layer", "whole", cuts, MAX_STAGES)
    for number, model in enumerate(exits, start=1):
        packer.add_exit(f"early-exit-{number}", model, "whole")
    semantic = trained.semantic
    branches = [export_network(branch, example) for branch in semantic.branches.branches]
    packer.add_branches("semantic", branches, semantic.groups)
    if trained.compressed is not None:
        packer.add_network("compressed", export_network(trained.compressed.network, example))
        packer.add_single("compressed", "compressed")
    if trained.bottleneck is not None:
        model = export_network(trained.bottleneck.network, example)
        crossing = bottlenecks(model)
        packer.add_network(BOTTLENECK, model, crossing)
        packer.add_chain(BOTTLENECK, BOTTLENECK, crossing)
    if recipe.int8:
        packer.add_network("int8", quantize(whole, bench.data.validation.images[:CALIBRATION_IMAGES]))
        packer.add_single("int8", "int8")
    return packer


def _exits(whole: Whole, example: NDArray[Any]) -> list[onnx.ModelProto]:
    """Export the network up to each of its early exits."""
    if whole.exits is None:
        return []
    return [export_network(whole.exits.up_to(number), example) for number in range(len(whole.exits.after))]
