"""The training loop learns, and goes on where it was interrupted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from splitplace.workshop.networks.resnet_v2 import ResNetV2
from splitplace.workshop.training import loop
from splitplace.workshop.training.loop import (
    Augmentation,
    Epoch,
    TrainingSchedule,
    best_epoch,
    digest_of_weights,
    finished,
    in_batches,
    train,
)
from tests.support.small_networks import easy_dataset, untrained_network


class _InterruptedError(Exception):
    pass


def _train_all(
    checkpoint: Path,
    schedule: TrainingSchedule,
    *,
    stop_after: int | None = None,
    unlearn_after: int | None = None,
    dropout: float = 0.0,
    targets: NDArray[np.float32] | None = None,
    origin: str = "",
) -> tuple[ResNetV2, tuple[Epoch, ...]]:
    data = easy_dataset()
    torch.manual_seed(schedule.seed)
    network = untrained_network()
    calls = 0

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if stop_after is not None and calls > stop_after:
            raise _InterruptedError
        if unlearn_after is not None and calls > unlearn_after:
            labels = (labels + 1) % 10
        return nn.functional.cross_entropy(nn.functional.dropout(network(images), dropout), labels)

    with Progress(console=Console(quiet=True)) as progress:
        curve = train(
            network,
            loss,
            schedule,
            training=data.training,
            validation=data.validation,
            augmentation=Augmentation(),
            checkpoint=checkpoint,
            progress=progress,
            targets=None if targets is None else lambda: targets,
            origin=origin,
        )
    return network, curve


def _train(
    checkpoint: Path, schedule: TrainingSchedule, stop_after: int | None = None
) -> tuple[ResNetV2, float]:
    network, curve = _train_all(checkpoint, schedule, stop_after=stop_after)
    assert len(curve) == schedule.epochs
    return network, curve[-1].validation_accuracy


def test_it_learns_what_can_be_learned(tmp_path: Path) -> None:
    _, accuracy = _train(tmp_path / "network.pt", TrainingSchedule(epochs=8, batch=20))
    assert accuracy > 0.6


def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    schedule = TrainingSchedule(epochs=3, batch=50)
    straight, _ = _train(tmp_path / "straight.pt", schedule)
    with pytest.raises(_InterruptedError):
        _train(tmp_path / "resumed.pt", schedule, stop_after=6)
    resumed, _ = _train(tmp_path / "resumed.pt", schedule)
    for name, value in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_a_training_that_ends_within_an_epoch_resumes_at_its_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout draws from the generator of torch itself."""
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    schedule = TrainingSchedule(epochs=2, batch=50)
    straight = _with_dropout(tmp_path / "straight.pt", schedule)
    for stop_after in (3, 2):
        with pytest.raises(_InterruptedError):
            _with_dropout(tmp_path / "resumed.pt", schedule, stop_after=stop_after)
    resumed = _with_dropout(tmp_path / "resumed.pt", schedule, stop_after=3)
    for name, value in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def _with_dropout(checkpoint: Path, schedule: TrainingSchedule, stop_after: int = 8) -> ResNetV2:
    """Train for at most `stop_after` steps; two epochs have eight."""
    network, _ = _train_all(checkpoint, schedule, stop_after=stop_after, dropout=0.3)
    return network


def test_probabilities_are_learnt_instead_of_labels(tmp_path: Path) -> None:
    """Every image is to be taken for the next class."""
    next_class = np.eye(10, dtype=np.float32)[(easy_dataset().training.labels + 1) % 10]
    schedule = TrainingSchedule(epochs=8, batch=20)
    network, _ = _train_all(tmp_path / "network.pt", schedule, targets=next_class)
    validation = easy_dataset().validation
    answers = in_batches(network, validation.images).argmax(axis=1)
    assert (answers == (validation.labels + 1) % 10).mean() > 0.6


def test_targets_of_a_finished_training_are_not_made(tmp_path: Path) -> None:
    schedule = TrainingSchedule(epochs=1, batch=50)
    finished_network, _ = _train_all(tmp_path / "network.pt", schedule)
    network = untrained_network()

    def never() -> NDArray[np.float32]:
        raise AssertionError

    with Progress(disable=True) as progress:
        train(
            network,
            lambda images, _: network(images).sum(),
            schedule,
            training=easy_dataset().training,
            validation=easy_dataset().validation,
            augmentation=Augmentation(),
            checkpoint=tmp_path / "network.pt",
            progress=progress,
            targets=never,
        )
    torch.testing.assert_close(network.state_dict(), finished_network.state_dict())


def test_a_checkpoint_of_another_schedule_is_passed_over(tmp_path: Path) -> None:
    first, _ = _train(tmp_path / "network.pt", TrainingSchedule(epochs=1, batch=50, seed=1))
    second, _ = _train(tmp_path / "network.pt", TrainingSchedule(epochs=1, batch=50, seed=2))
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


def test_a_checkpoint_that_came_from_another_network_is_passed_over(tmp_path: Path) -> None:
    """Branches of the last training of the whole network are not those of the next one."""
    schedule = TrainingSchedule(epochs=1, batch=50)
    whole = untrained_network()
    before = digest_of_weights(whole)
    _train_all(tmp_path / "network.pt", schedule, origin=before)
    _train_all(tmp_path / "network.pt", schedule, origin=before, stop_after=0)  # finished: takes no step
    nn.init.ones_(whole.classifier.bias)
    with pytest.raises(_InterruptedError):
        _train_all(tmp_path / "network.pt", schedule, origin=digest_of_weights(whole), stop_after=0)


def test_augmentation_moves_pictures_within_bounds() -> None:
    images = torch.zeros(64, 1, 28, 28, dtype=torch.uint8)
    images[:, :, 12:16, 12:16] = 200
    changed = Augmentation()(images, torch.Generator().manual_seed(0), 28)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 200.01
    assert len({tuple(picture.flatten().tolist()) for picture in changed}) == 64
    assert changed[:, :, 6:22, 6:22].sum() == pytest.approx(changed.sum().item())


def test_augmentation_without_bounds_changes_nothing() -> None:
    images = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
    same = Augmentation(degrees=0, scale=0, shift_pixels=0)(images, torch.Generator(), 28)
    torch.testing.assert_close(same, images.float(), atol=1e-2, rtol=0)


def test_growing_pictures_and_a_mirror_are_part_of_the_schedule() -> None:
    schedule = TrainingSchedule(epochs=3, sides=(16, 20))
    assert [schedule.side(epoch, 28) for epoch in range(3)] == [16, 20, 28]


def _curve(*accuracies: float) -> list[Epoch]:
    return [Epoch(1.0, accuracy, 1.0) for accuracy in accuracies]


def test_training_ends_after_epochs_without_a_better_one() -> None:
    schedule = TrainingSchedule(epochs=9, patience=2)
    assert not finished(_curve(0.5, 0.6, 0.6), schedule, 28)
    assert finished(_curve(0.5, 0.6, 0.6, 0.5), schedule, 28)
    assert finished(_curve(*[0.1 * number for number in range(9)]), schedule, 28)
    assert not finished(_curve(0.5, 0.6, 0.6, 0.5), TrainingSchedule(epochs=9), 28)


def test_epochs_on_smaller_pictures_do_not_count_as_the_best() -> None:
    schedule = TrainingSchedule(epochs=9, patience=1, sides=(16, 16, 28))
    assert best_epoch(_curve(0.9, 0.8), schedule, 28) is None
    assert best_epoch(_curve(0.9, 0.8, 0.5, 0.6, 0.6), schedule, 28) == 3
    assert not finished(_curve(0.9, 0.8, 0.5), schedule, 28)


def test_an_early_end_gives_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    """From the sixth epoch on it unlearns what it has learned."""
    schedule = TrainingSchedule(epochs=12, batch=20, patience=2)
    network, curve = _train_all(tmp_path / "network.pt", schedule, unlearn_after=50)
    best = best_epoch(curve, schedule, 28)
    assert best is not None
    assert len(curve) == best + 3 < 12
    validation = easy_dataset().validation
    answers = in_batches(network, validation.images).argmax(axis=1)
    accuracy = (answers == validation.labels).mean()
    assert accuracy == curve[best].validation_accuracy > curve[-1].validation_accuracy
