"""The recipe of each shipped application: its data, its networks and their training."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from splitplace.workshop.compression.bottleneck import Narrowing
from splitplace.workshop.datasets import CLASS_NAMES
from splitplace.workshop.networks.common import Pixels
from splitplace.workshop.networks.resnet_v2 import ResNetV2, Stem
from splitplace.workshop.onnx.narrow import Storage
from splitplace.workshop.training.loop import Augmentation, TrainingSchedule

RecipePart = Literal["whole", "semantic", "compressed", "bottleneck"]
"""A network that is trained by itself."""

ONE_EPOCH = TrainingSchedule(epochs=1, peak_learning_rate=0.01)


@dataclass(frozen=True)
class Recipe:
    """How an application is made. The same seed gives the same weights."""

    name: str
    title: str
    dataset: str
    """Name in `splitplace.workshop.datasets.PUBLISHED`."""
    mean: tuple[float, ...]
    """Mean of the training pixels, in bytes, one value per channel."""
    deviation: tuple[float, ...]
    """Standard deviation of the training pixels, likewise."""
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    branch_widths: tuple[int, ...]
    """Chosen so that a branch has at most .9 / `branches` of the whole network's operations."""
    augmentation: Augmentation
    schedule: TrainingSchedule
    semantic_schedule: TrainingSchedule
    """Training of the branches: as long as `schedule` if they start from random weights."""
    compressed_schedule: TrainingSchedule
    """Fine-tuning of the pruned network: shorter and with a lower learning rate."""
    second_schedule: TrainingSchedule | None = None
    """A second training of the whole network, starting where the first ended."""
    bottleneck_schedule: TrainingSchedule = ONE_EPOCH
    bottlenecks: Mapping[str, Narrowing] = field(default_factory=dict)
    """Bottlenecks by the module they follow, for the variant `layer-bottleneck`; empty = no such variant."""
    compressed_flops: float = 0.4
    """Share of the whole network's operations that pruning keeps."""
    int8: bool = True
    """Whether the application has a variant with eight-bit arithmetic."""
    stem: Stem = "full"
    branches: int = 3
    specialised: bool = False
    """Whether branches start as the pruned whole network; else from random weights in `branch_widths`."""
    stages: int = 3
    """Fragments of the chain."""
    label_smoothing: float = 0.0
    storage: Storage = "int8"
    """Type in which weights are stored. Nodes compute with float32 in any case."""
    default_deadline_ms: float = 1000.0

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return CLASS_NAMES[self.dataset]

    def network(self, outputs: int, widths: tuple[int, ...]) -> ResNetV2:
        """Build a network with random weights."""
        pixels = Pixels(self.mean, self.deviation)
        return ResNetV2(outputs, widths=widths, blocks=self.blocks, pixels=pixels, stem=self.stem)

    def with_budget(self, *, epochs: int | None, seed: int | None) -> "Recipe":
        """Return the recipe with at most `epochs` epochs or another seed, for experiments."""

        def within(schedule: TrainingSchedule) -> TrainingSchedule:
            if epochs is not None and epochs < schedule.epochs:
                schedule = replace(schedule, epochs=epochs, sides=schedule.sides[-epochs:])
            return schedule if seed is None else replace(schedule, seed=seed)

        return replace(
            self,
            schedule=within(self.schedule),
            second_schedule=within(self.second_schedule) if self.second_schedule else None,
            semantic_schedule=within(self.semantic_schedule),
            compressed_schedule=within(self.compressed_schedule),
            bottleneck_schedule=within(self.bottleneck_schedule),
        )


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mnist",
            title="Handwritten digits (MNIST)",
            dataset="mnist",
            mean=(33.3,),
            deviation=(78.6,),
            stem="halving",
            blocks=(2, 2, 2),
            widths=(32, 64, 112),
            branch_widths=(16, 32, 64),
            augmentation=Augmentation(),
            schedule=TrainingSchedule(epochs=9),
            semantic_schedule=TrainingSchedule(epochs=9),
            compressed_schedule=TrainingSchedule(epochs=2, peak_learning_rate=0.02),
            bottlenecks={"blocks.1": Narrowing(8), "blocks.3": Narrowing(8)},
        ),
        Recipe(
            name="fashionmnist",
            title="Clothes (FashionMNIST)",
            dataset="fashionmnist",
            mean=(72.9,),
            deviation=(90.0,),
            blocks=(1, 2, 2),
            widths=(24, 64, 128),
            branch_widths=(16, 32, 64),
            specialised=True,
            augmentation=Augmentation(degrees=5, scale=0.1, shift_pixels=2, mirror=True),
            schedule=TrainingSchedule(
                epochs=12,
                peak_learning_rate=0.1,
                sides=(*(16,) * 3, *(20,) * 3, *(24,) * 2, *(28,) * 4),
            ),
            semantic_schedule=TrainingSchedule(epochs=4, peak_learning_rate=0.05, sides=(20, 24, 28, 28)),
            compressed_schedule=TrainingSchedule(epochs=2, peak_learning_rate=0.02),
            label_smoothing=0.1,
        ),
        Recipe(
            name="cifar100",
            title="Hundred kinds of objects (CIFAR-100)",
            dataset="cifar100",
            mean=(129.3, 124.1, 112.4),
            deviation=(68.2, 65.4, 70.4),
            blocks=(1, 2, 2, 2),
            widths=(24, 64, 128, 256),
            branches=2,
            branch_widths=(16, 40, 88, 168),
            specialised=True,
            augmentation=Augmentation(degrees=10, scale=0.15, shift_pixels=3, mirror=True),
            schedule=TrainingSchedule(
                epochs=12,
                peak_learning_rate=0.15,
                sides=(*(20,) * 4, *(24,) * 3, *(28,) * 2, *(32,) * 3),
            ),
            second_schedule=TrainingSchedule(
                epochs=8, seed=1, peak_learning_rate=0.1, sides=(*(28,) * 3, *(32,) * 5)
            ),
            semantic_schedule=TrainingSchedule(epochs=3, peak_learning_rate=0.05, sides=(24, 28, 32)),
            compressed_schedule=TrainingSchedule(epochs=3, peak_learning_rate=0.03, sides=(28, 32, 32)),
            int8=False,
            label_smoothing=0.1,
        ),
    )
}
"""Recipes of the shipped applications, by name. Growing pictures make the early epochs faster."""
