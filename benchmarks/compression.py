"""Measure compression: `python -m benchmarks.compression mnist --data DIR` (extra `models`).

The networks are those of a build: finished checkpoints are read, missing ones are trained. Accuracy is that
of the exported fragments on validation images; the test images are not used. Times are CPU times of one
thread in ONNX Runtime, the best of several rounds over all variants in turn; the time of a chain is the sum
over its fragments. Bytes that cross are counted before the codec of the wire: float32 values after a fragment
of the whole network's chain, one byte per value after a bottleneck.
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
from rich.table import Table

from splitplace.bus.settings import Settings
from splitplace.commands.shared.places import model_store
from splitplace.edge_node.runtime import FragmentRuntime, load_fragment
from splitplace.workshop.compression.bottleneck import cut_at_bottlenecks
from splitplace.workshop.compression.quantization import quantize
from splitplace.workshop.cutting.layer_split import cut, cut_points
from splitplace.workshop.cutting.profile import time_runtimes
from splitplace.workshop.datasets import Subset, load_published
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.recipes.build import CALIBRATION_IMAGES
from splitplace.workshop.recipes.recipes import RECIPES
from splitplace.workshop.recipes.trainings import Workbench, train_bottleneck, train_compressed, train_whole

BATCHES = (1, 16)
EVALUATION_BATCH = 100


@dataclass(frozen=True)
class Chain:
    """A variant as a chain of fragments."""

    name: str
    models: tuple[onnx.ModelProto, ...]
    runtimes: tuple[FragmentRuntime, ...]

    @property
    def crossing_bytes(self) -> int:
        """Bytes that cross between fragments, for one image."""
        return sum(runtime.output.bytes_per_image for runtime in self.runtimes[:-1])

    def accuracy(self, subset: Subset) -> float:
        """Compute the share of right answers."""
        right = 0
        for start in range(0, len(subset), EVALUATION_BATCH):
            tensor = subset.images[start : start + EVALUATION_BATCH]
            for runtime in self.runtimes:
                tensor = runtime.run(tensor)
            right += int((tensor.argmax(axis=1) == subset.labels[start : start + EVALUATION_BATCH]).sum())
        return right / len(subset)


def exported(bench: Workbench) -> dict[str, tuple[onnx.ModelProto, ...]]:
    """Make the fragments of every variant."""
    example = np.zeros((2, *bench.data.validation.images.shape[1:]), np.uint8)
    calibration = bench.data.training.images[:CALIBRATION_IMAGES]
    network = train_whole(bench).network
    whole = export_network(network, example)
    pruned = export_network(train_compressed(bench, network).network, example)
    narrowed = cut_at_bottlenecks(export_network(train_bottleneck(bench, network).network, example))
    return {
        "whole": (whole,),
        "pruned": (pruned,),
        "int8": (quantize(whole, calibration),),
        "pruned, int8": (quantize(pruned, calibration),),
        "chain": cut(whole, _same_places(whole, [Graph(model).flops_per_image for model in narrowed])),
        "chain with bottlenecks": narrowed,
    }


def _same_places(whole: onnx.ModelProto, flops: Sequence[int]) -> list[str]:
    """Choose cuts of the whole network whose stages come closest to the given shares of the work."""
    points = [point.tensor for point in cut_points(whole)]
    done = np.cumsum([Graph(segment).flops_per_image for segment in cut(whole, points)])
    wanted = np.cumsum(flops)[:-1] / sum(flops) * done[-1]
    return [points[int(np.abs(done[:-1] - share).argmin())] for share in wanted]


def load(variants: dict[str, tuple[onnx.ModelProto, ...]], folder: Path) -> list[Chain]:
    """Load the variants as a node does."""
    chains = []
    for name, models in variants.items():
        runtimes = []
        for index, model in enumerate(models):
            path = folder / f"{name}-{index}.onnx"
            path.write_bytes(file_content(model))
            runtimes.append(load_fragment(path))
        chains.append(Chain(name, models, tuple(runtimes)))
    return chains


def table(title: str, chains: Sequence[Chain], subset: Subset) -> Table:
    """Return a table with one line per variant; the first is the baseline."""
    timings = iter(time_runtimes([runtime for chain in chains for runtime in chain.runtimes], BATCHES))
    printed = Table("variant", title=title, box=None)
    for heading in ("accuracy", "MFLOPs", "file kB", "ms/image", "speed-up", "crossing bytes"):
        printed.add_column(heading, justify="right")
    first_ms = 0.0
    for chain in chains:
        costs = [next(timings) for _ in chain.runtimes]
        image_ms = sum(cost.per_image + cost.per_call / BATCHES[-1] for cost in costs)
        first_ms = first_ms or image_ms
        flops = sum(Graph(model).flops_per_image for model in chain.models)
        printed.add_row(
            chain.name,
            f"{chain.accuracy(subset):.4f}",
            f"{flops / 1e6:.1f}",
            f"{sum(len(file_content(model)) for model in chain.models) / 1e3:.0f}",
            f"{image_ms:.3f}",
            f"{first_ms / image_ms:.2f}",
            f"{chain.crossing_bytes}",
        )
    return printed


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("application", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, help="folder with the data set's files")
    parser.add_argument("--checkpoints", type=Path, default=Settings().paths.trainings)
    parser.add_argument("--images", type=int, default=5000, help="validation images to measure accuracy on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = RECIPES[arguments.application]
    data = load_published(recipe.dataset, arguments.data)
    console = Console()
    with Progress(console=console) as progress:
        checkpoints = arguments.checkpoints / recipe.name
        bench = Workbench(recipe, data, checkpoints, progress, model_store(None))
        variants = exported(bench)
    validation = data.validation
    subset = Subset(validation.images[: arguments.images], validation.labels[: arguments.images])
    title = f"{recipe.title}: {len(subset)} validation images; batches of {BATCHES[-1]}"
    with tempfile.TemporaryDirectory() as folder:
        console.print(table(title, load(variants, Path(folder)), subset))


if __name__ == "__main__":
    main()
