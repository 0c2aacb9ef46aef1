"""One training loop for every network: SGD with a one-cycle learning rate, resumable after each epoch."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

from models.datasets import Subset

Loss = Callable[[Tensor, Tensor], Tensor]
"""From augmented images `float32[N, 1, H, W]` and labels `int64[N]` to the scalar to minimise."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. The seed decides initial weights, order and augmentation."""

    epochs: int
    seed: int = 0
    batch: int = 128
    peak_learning_rate: float = 0.1
    weight_decay: float = 5e-4
    sides: tuple[int, ...] = ()
    """Side of the pictures in each epoch, in pixels; the data's own side where none is given. Starting with
    small pictures saves most of the time of the early epochs and costs little of what is learned."""
    patience: int = 0
    """Training ends after so many epochs without a better validation accuracy; 0: it runs to its end."""


class Epoch(NamedTuple):
    """One point of a training curve."""

    training_loss: float
    validation_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Augmentation:
    """Bounds of the random affine change that every training image gets."""

    degrees: float = 10.0
    scale: float = 0.1
    shift_pixels: float = 2.0
    mirror: bool = False
    """Whether every other picture is mirrored, left to right."""

    def __call__(self, images: Tensor, generator: torch.Generator, side: int) -> Tensor:
        """Rotated, scaled, shifted and perhaps mirrored pictures.

        `uint8[N, C, H, H]` to `float32[N, C, side, side]` of the same range.
        """
        count, channels, _, own_side = images.shape
        random = torch.rand(4, count, generator=generator) * 2 - 1
        angle = random[0] * math.radians(self.degrees)
        scale = 1 + random[1] * self.scale
        shift = random[2:4] * 2 * self.shift_pixels / own_side
        cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
        flip = torch.ones(count)
        if self.mirror:
            flip[torch.rand(count, generator=generator) < 0.5] = -1.0  # noqa: PLR2004 - every other picture
        rows = (flip * cosine, -sine, shift[0], flip * sine, cosine, shift[1])
        transform = torch.stack(rows, dim=1).view(count, 2, 3)
        grid = nn.functional.affine_grid(transform, [count, channels, side, side], align_corners=False)
        return nn.functional.grid_sample(images.float(), grid, align_corners=False)


def train(
    network: nn.Module,
    loss: Loss,
    schedule: Schedule,
    *,
    training: Subset,
    validation: Subset,
    augmentation: Augmentation,
    checkpoint: Path,
    progress: Progress,
) -> tuple[Epoch, ...]:
    """Trains `network` in place, or takes up an interrupted training where its checkpoint stands.

    Every epoch draws its order and augmentation from the seed and its own number, so that a resumed training
    ends where an uninterrupted one does.

    Args:
        network: Maps images to logits over all classes.
        loss: What to minimise; it calls the network.
        schedule: Epochs, seed, learning rate.
        training: What to learn from.
        validation: What the curve is measured on.
        augmentation: How the training pictures are varied.
        checkpoint: File written after each epoch. One of another schedule is passed over.
        progress: Where the progress is shown.

    Returns:
        The curve, one point an epoch.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = math.ceil(len(training) / schedule.batch)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=schedule.weight_decay
    )
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.peak_learning_rate, total_steps=steps * schedule.epochs
    )
    state = _Checkpoint(checkpoint, schedule, {"network": network, "optimizer": optimizer, "rate": rate})
    curve = state.load()
    name = checkpoint.stem
    bar = progress.add_task(name, total=schedule.epochs * steps, completed=len(curve) * steps)
    for epoch in range(len(curve), schedule.epochs):
        started = time.perf_counter()
        network.train()
        total = 0.0
        generator = torch.Generator().manual_seed(schedule.seed * 1000 + epoch)
        side = schedule.sides[epoch] if schedule.sides else training.images.shape[-1]
        order = torch.randperm(len(training), generator=generator).numpy()
        for start in range(0, len(training), schedule.batch):
            chosen = order[start : start + schedule.batch]
            images = augmentation(torch.from_numpy(training.images[chosen]), generator, side)
            labels = torch.from_numpy(training.labels[chosen].astype(np.int64))
            value = loss(images.contiguous(memory_format=torch.channels_last), labels)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
            total += value.item() * len(chosen)
            progress.advance(bar)
        network.eval()
        answers = in_batches(network, validation.images).argmax(axis=1)
        accuracy = float((answers == validation.labels).mean())
        curve.append(Epoch(total / len(training), accuracy, time.perf_counter() - started))
        state.save(curve)
        progress.console.print(
            f"{name}: epoch {epoch + 1}/{schedule.epochs}, training loss {curve[-1].training_loss:.4f}, "
            f"validation accuracy {accuracy:.4f}, {curve[-1].seconds:.0f} s"
        )
    network.eval()
    return tuple(curve)


def in_batches(
    function: Callable[[Tensor], Tensor], images: NDArray[np.uint8], batch: int = 500
) -> NDArray[np.float32]:
    """What a network (or a part of it) makes of many images, `float32[N, ...]`, without gradients."""
    with torch.inference_mode():
        outputs = [
            function(torch.from_numpy(images[start : start + batch]))
            for start in range(0, len(images), batch)
        ]
    result: NDArray[np.float32] = torch.cat(outputs).numpy()
    return result


@dataclass(frozen=True)
class _Checkpoint:
    """The state of a training, on disk after each epoch."""

    path: Path
    schedule: Schedule
    parts: dict[str, Any]
    """What has a state of its own: network, optimizer, learning rate."""

    def load(self) -> list[Epoch]:
        """Sets the parts to where a training of this schedule stopped; the curve so far, if there was one."""
        if not self.path.exists():
            return []
        stored: dict[str, Any] = torch.load(self.path, weights_only=True)
        if stored["schedule"] != asdict(self.schedule):
            return []
        for name, part in self.parts.items():
            part.load_state_dict(stored[name])
        return [Epoch(*point) for point in stored["curve"]]

    def save(self, curve: list[Epoch]) -> None:
        """Replaces the file at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        states = {name: part.state_dict() for name, part in self.parts.items()}
        facts = {"schedule": asdict(self.schedule), "curve": [tuple(point) for point in curve]}
        torch.save(states | facts, partial)
        partial.replace(self.path)
