"""The recipe of each shipped application: its data, its networks and their training."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from splitplace.workshop.compression.bottleneck import Narrowing
from splitplace.workshop.datasets import CLASS_NAMES, PUBLISHED
from splitplace.workshop.networks.common import Classifier, Pixels
from splitplace.workshop.networks.designs import Design, Inception, MobileNet, ResNet
from splitplace.workshop.networks.resnet_v2 import PRINTED_BLOCKS, PRINTED_WIDTHS
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
    design: Design
    """The whole network."""
    branch_design: Design
    """Branches that start from random weights. A branch has at most .9 / `branches` of the whole network's
    operations."""
    augmentation: Augmentation
    schedule: TrainingSchedule
    semantic_schedule: TrainingSchedule
    """Training of the branches: as long as `schedule` if they start from random weights."""
    compressed_schedule: TrainingSchedule | None
    """Fine-tuning of the pruned network: shorter and with a lower learning rate; None = no such variant."""
    second_schedule: TrainingSchedule | None = None
    """A second training of the whole network, starting where the first ended."""
    bottleneck_schedule: TrainingSchedule = ONE_EPOCH
    bottlenecks: Mapping[str, Narrowing] = field(default_factory=dict)
    """Bottlenecks by the module they follow, for the variant `layer-bottleneck`; empty = no such variant."""
    compressed_flops: float = 0.4
    """Share of the whole network's operations that pruning keeps."""
    int8: bool = True
    """Whether the application has a variant with eight-bit arithmetic."""
    side: int = 0
    """Side to which every network enlarges the pictures first; 0 = their own."""
    teacher: str = ""
    """Application whose whole network the new one also learns from, with half of the weight; empty = none."""
    early_exits: tuple[int, ...] = ()
    """Numbers of blocks of the whole network after which it is trained to answer, too."""
    exit_share: float = 0.3
    """Weight of the loss of each early exit, where that of the last layer is 1."""
    bfloat16: frozenset[RecipePart] = frozenset()
    """Networks that are trained with bfloat16 arithmetic, which newer CPUs compute faster."""
    distilled: bool = True
    """Whether branches also learn the whole network's answers, which takes long if it is large."""
    branches: int = 3
    specialised: bool = False
    """Whether branches start as the pruned whole network; else from random weights in `branch_design`."""
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

    def whole(self) -> Classifier:
        """Build the whole network with random weights."""
        return self.network(self.design, len(self.labels))

    def branch(self, outputs: int) -> Classifier:
        """Build a branch with random weights."""
        return self.network(self.branch_design, outputs)

    def network(self, design: Design, outputs: int) -> Classifier:
        """Build a network with random weights for the pictures of the data set."""
        own_side = PUBLISHED[self.dataset].shape[-1]
        side = self.side or own_side
        return design.build(outputs, Pixels(self.mean, self.deviation, side / own_side), side)

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
            compressed_schedule=within(self.compressed_schedule) if self.compressed_schedule else None,
            bottleneck_schedule=within(self.bottleneck_schedule),
        )


_clothes = partial(Recipe, dataset="fashionmnist", mean=(72.9,), deviation=(90.0,))
_SHIFTED = Augmentation(degrees=0, scale=0, shift_pixels=2, mirror=True)
"""Pictures are moved and mirrored, neither turned nor scaled."""

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mnist",
            title="Handwritten digits (MNIST)",
            dataset="mnist",
            mean=(33.3,),
            deviation=(78.6,),
            design=ResNet((32, 64, 112), (2, 2, 2), "halving"),
            branch_design=ResNet((16, 32, 64), (2, 2, 2), "halving"),
            augmentation=Augmentation(),
            schedule=TrainingSchedule(epochs=9),
            semantic_schedule=TrainingSchedule(epochs=9),
            compressed_schedule=TrainingSchedule(epochs=2, peak_learning_rate=0.02),
            bottlenecks={"blocks.1": Narrowing(8), "blocks.3": Narrowing(8)},
        ),
        _clothes(
            name="fashionmnist",
            title="Clothes (FashionMNIST)",
            design=ResNet((24, 64, 128), (1, 2, 2)),
            branch_design=ResNet((16, 32, 64), (1, 2, 2)),
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
            design=ResNet((24, 64, 128, 256), (1, 2, 2, 2)),
            branches=2,
            branch_design=ResNet((16, 40, 88, 168), (1, 2, 2, 2)),
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
        _clothes(
            name="resnet50",
            title="Clothes (FashionMNIST), with ResNet50-V2",
            design=ResNet(PRINTED_WIDTHS, PRINTED_BLOCKS, "halving", bottlenecks=True),
            early_exits=(7, 13),
            bfloat16=frozenset({"whole"}),
            branch_design=ResNet((16, 32, 64, 96), (1, 1, 1, 1), "halving", bottlenecks=True),
            distilled=False,
            augmentation=_SHIFTED,
            schedule=TrainingSchedule(epochs=10, peak_learning_rate=0.1),
            semantic_schedule=TrainingSchedule(
                epochs=10, peak_learning_rate=0.1, sides=(*(20,) * 3, *(24,) * 2)
            ),
            compressed_schedule=None,
            int8=False,
            label_smoothing=0.1,
        ),
        _clothes(
            name="mobilenet",
            title="Clothes (FashionMNIST), with MobileNetV2",
            side=32,
            design=MobileNet(stem="halving"),
            branch_design=MobileNet(0.4, "halving"),
            specialised=True,
            teacher="resnet50",
            augmentation=_SHIFTED,
            schedule=TrainingSchedule(epochs=10, peak_learning_rate=0.1),
            semantic_schedule=TrainingSchedule(epochs=3, peak_learning_rate=0.05),
            compressed_schedule=TrainingSchedule(epochs=2, peak_learning_rate=0.02),
            int8=False,
        ),
        _clothes(
            name="inception",
            title="Clothes (FashionMNIST), with InceptionV3",
            side=75,
            design=Inception(),
            branch_design=Inception(0.5),
            specialised=True,
            teacher="resnet50",
            bfloat16=frozenset({"whole", "semantic", "compressed"}),
            augmentation=_SHIFTED,
            schedule=TrainingSchedule(epochs=4, peak_learning_rate=0.03),
            second_schedule=TrainingSchedule(epochs=4, seed=1, peak_learning_rate=0.03),
            semantic_schedule=TrainingSchedule(epochs=1, peak_learning_rate=0.02),
            compressed_schedule=TrainingSchedule(epochs=1, peak_learning_rate=0.01),
            int8=False,
        ),
    )
}
"""Recipes of the shipped applications, by name. Growing pictures make the early epochs faster."""
