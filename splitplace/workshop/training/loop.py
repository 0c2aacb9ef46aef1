"""One training loop for every network: SGD with a one-cycle learning rate, resumable at any time."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

from splitplace.storage.replace import replacing
from splitplace.workshop.datasets import Subset

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps augmented images `float32[N, C, H, W]` and what to learn, labels `int64[N]` or probabilities
`float32[N, classes]`, to the scalar to minimise."""

SAVE_EVERY_S = 240.0
"""Time between two checkpoints within an epoch, in seconds."""


@dataclass(frozen=True)
class TrainingSchedule:
    """Length and learning rate of a training. The seed decides initial weights, order and augmentation."""

    epochs: int
    seed: int = 0
    batch: int = 128
    peak_learning_rate: float = 0.1
    weight_decay: float = 5e-4
    sides: tuple[int, ...] = ()
    """Side of the pictures in each epoch, in pixels; the data's own side in epochs without an entry. Starting
    with small pictures saves most of the time of the early epochs and costs little accuracy."""
    patience: int = 0
    """Epochs without a better validation accuracy after which training stops, with the weights of the best
    epoch; 0 = run to the end and keep the last weights."""

    def side(self, epoch: int, own_side: int) -> int:
        """Return the side of the pictures in an epoch; `own_side` is that of the data."""
        return self.sides[epoch] if epoch < len(self.sides) else own_side


class Epoch(NamedTuple):
    """One point of a training curve."""

    training_loss: float
    validation_accuracy: float
    seconds: float
    """CPU time of the process."""


class PartialEpoch(NamedTuple):
    """The part of an epoch that is over."""

    step: int
    """Number of batches."""
    loss: float
    """Sum over their images."""
    seconds: float
    generator: Tensor
    """State of the generator of augmentations."""
    dropout: Tensor
    """State of torch's own generator on the CPU."""


@dataclass(frozen=True)
class Augmentation:
    """Bounds of the random affine transformation of every training image."""

    degrees: float = 10.0
    scale: float = 0.1
    shift_pixels: float = 2.0
    mirror: bool = False
    """Whether half of the pictures are mirrored left to right."""

    def __call__(self, images: Tensor, generator: torch.Generator, side: int) -> Tensor:
        """Return rotated, scaled, shifted and possibly mirrored pictures.

        Maps `uint8[N, C, H, H]` to `float32[N, C, side, side]` with the same range of values.
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
        size = [count, channels, side, side]
        grid = nn.functional.affine_grid(transform.to(images.device), size, align_corners=False)
        return nn.functional.grid_sample(images.float(), grid, align_corners=False)


def train(
    network: nn.Module,
    loss: Loss,
    schedule: TrainingSchedule,
    *,
    training: Subset,
    validation: Subset,
    augmentation: Augmentation,
    checkpoint: Path,
    progress: Progress,
    device: str = "cpu",
    targets: Callable[[], NDArray[np.float32]] | None = None,
    origin: str = "",
) -> tuple[Epoch, ...]:
    """Train `network` in place, resuming an interrupted training from its checkpoint.

    Every epoch draws its order and augmentation from the seed and the epoch's number, so a resumed training
    ends with the same weights as an uninterrupted one (on a GPU, only where it resumes after an epoch). The
    network is left on the CPU in evaluation mode.

    Args:
        network: Maps images to logits over all classes.
        loss: Function to minimise; it calls the network.
        schedule: Epochs, seed, learning rate.
        training: Images to learn from.
        validation: Images on which the curve is measured.
        augmentation: Random transformation of the training images.
        checkpoint: File written after each epoch and every few minutes. A file of another schedule, network
            or origin is ignored.
        progress: Display for the progress.
        device: Torch device, `cpu` or `cuda`. Other networks that the loss calls must be on it too.
        targets: Returns probabilities `[N, classes]` to learn instead of the labels of the training images.
            Called only if there is something to train.
        origin: Digest of the network from whose weights this one was made, or whose answers it learns.

    Returns:
        The training curve, one point per epoch.
    """
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = math.ceil(len(training) / schedule.batch)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=schedule.weight_decay
    )
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.peak_learning_rate, total_steps=steps * schedule.epochs
    )
    state = Checkpoint(
        checkpoint,
        schedule,
        {"network": network, "optimizer": optimizer, "rate": rate},
        origin,
    )
    curve, begun = state.load()
    own_side = training.images.shape[-1]
    labels = training.labels.astype(np.int64)
    target_of_each = labels if targets is None or finished(curve, schedule, own_side) else targets()
    done = len(curve) * steps + (begun.step if begun else 0)
    bar = progress.add_task(checkpoint.stem, total=schedule.epochs * steps, completed=done)
    while not finished(curve, schedule, own_side):
        epoch = len(curve)
        network.train()
        generator = _seeded_generator(schedule.seed * 1000 + epoch)
        side = schedule.side(epoch, own_side)
        order = torch.randperm(len(training), generator=generator).numpy()
        first, total, seconds = 0, 0.0, 0.0
        if begun:
            first, total, seconds = begun[:3]
            generator.set_state(begun.generator)
            torch.set_rng_state(begun.dropout)
        started, saved = time.process_time() - seconds, time.monotonic()
        for step in range(first, steps):
            chosen = order[step * schedule.batch : (step + 1) * schedule.batch]
            pictures = torch.from_numpy(training.images[chosen]).to(device)
            images = augmentation(pictures, generator, side)
            target = torch.from_numpy(target_of_each[chosen]).to(device)
            value = loss(images.contiguous(memory_format=torch.channels_last), target)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
            total += value.item() * len(chosen)
            progress.advance(bar)
            if time.monotonic() - saved >= SAVE_EVERY_S:
                seconds = time.process_time() - started
                state.save(
                    curve,
                    PartialEpoch(step + 1, total, seconds, generator.get_state(), torch.get_rng_state()),
                )
                progress.console.print(
                    f"{checkpoint.stem}: epoch {epoch + 1}, step {step + 1}/{steps}, "
                    f"training loss {total / min((step + 1) * schedule.batch, len(training)):.4f}, "
                    f"{seconds:.0f} CPU s"
                )
                saved = time.monotonic()
        begun = None
        network.eval()
        answers = in_batches(network, validation.images, device=device).argmax(axis=1)
        accuracy = float((answers == validation.labels).mean())
        curve.append(Epoch(total / len(training), accuracy, time.process_time() - started))
        state.save(curve, best=best_epoch(curve, schedule, own_side) == epoch)
        progress.console.print(
            f"{checkpoint.stem}: epoch {epoch + 1}/{schedule.epochs}, "
            f"training loss {curve[-1].training_loss:.4f}, "
            f"validation accuracy {accuracy:.4f}, {curve[-1].seconds:.0f} CPU s"
        )
    if schedule.patience:
        state.load_best()
    network.to("cpu").eval()
    return tuple(curve)


def digest_of_weights(network: nn.Module) -> str:
    """Return the SHA-256 of all weights of a network."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _seeded_generator(seed: int) -> torch.Generator:
    """Seed torch's own generator, from which dropout draws, and return another one for everything else."""
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def best_epoch(curve: Sequence[Epoch], schedule: TrainingSchedule, own_side: int) -> int | None:
    """Return the number of the epoch with the best validation accuracy; the first if several are equal.

    Only epochs on pictures of their own side count, because validation uses that side. None while there is
    no such epoch.
    """
    counting = [number for number in range(len(curve)) if schedule.side(number, own_side) == own_side]
    return max(counting, key=lambda number: curve[number].validation_accuracy, default=None)


def finished(curve: Sequence[Epoch], schedule: TrainingSchedule, own_side: int) -> bool:
    """Whether all epochs are over, or `patience` epochs passed without a better one."""
    if len(curve) >= schedule.epochs:
        return True
    best = best_epoch(curve, schedule, own_side)
    return bool(schedule.patience) and best is not None and len(curve) - 1 - best >= schedule.patience


def in_batches(
    function: Callable[[Tensor], Tensor], images: NDArray[np.uint8], batch: int = 500, device: str = "cpu"
) -> NDArray[np.float32]:
    """Apply a network, or a part of it, to many images without gradients; return `float32[N, ...]`."""
    with torch.inference_mode():
        outputs = [
            function(torch.from_numpy(images[start : start + batch]).to(device)).cpu()
            for start in range(0, len(images), batch)
        ]
    result: NDArray[np.float32] = torch.cat(outputs).numpy()
    return result


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training, written to disk after each epoch and within it."""

    path: Path
    schedule: TrainingSchedule
    parts: dict[str, Any]
    """Objects with a `state_dict`: network, optimizer, learning rate."""
    origin: str = ""
    """See `train`; empty = it began with random weights and learns labels only."""

    def load(self) -> tuple[list[Epoch], PartialEpoch | None]:
        """Restore the parts from the checkpoint; return the curve so far and the epoch that has begun."""
        stored = self._stored()
        if stored is None:
            return [], None
        for name, part in self.parts.items():
            part.load_state_dict(stored[name])
        begun = stored.get("begun")
        return [Epoch(*point) for point in stored["curve"]], PartialEpoch(*begun) if begun else None

    def load_best(self) -> None:
        """Restore the network's weights after its best epoch."""
        stored = self._stored()
        if stored is not None and "best" in stored:
            self.parts["network"].load_state_dict(stored["best"])

    def save(self, curve: Sequence[Epoch], begun: PartialEpoch | None = None, *, best: bool = False) -> None:
        """Replace the file atomically. It holds the weights of the best epoch beside those of the last."""
        states = {name: part.state_dict() for name, part in self.parts.items()}
        if self.schedule.patience:
            stored = None if best else self._stored()
            states["best"] = states["network"] if stored is None else stored["best"]
        facts = {
            "schedule": asdict(self.schedule),
            "origin": self.origin,
            "curve": [tuple(point) for point in curve],
            "begun": tuple(begun) if begun else None,
        }
        with replacing(self.path) as file:
            torch.save(states | facts, file)

    def _stored(self) -> dict[str, Any] | None:
        """Return the content of the file if it belongs to this schedule, network and origin."""
        if not self.path.exists():
            return None
        stored: dict[str, Any] = torch.load(self.path, weights_only=True, map_location="cpu")
        if stored["schedule"] != asdict(self.schedule) or stored.get("origin", "") != self.origin:
            return None
        shapes = {name: value.shape for name, value in stored["network"].items()}
        if shapes != {name: value.shape for name, value in self.parts["network"].state_dict().items()}:
            return None
        return stored
