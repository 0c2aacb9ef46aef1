"""Fixtures of the workshop's tests."""

from pathlib import Path

import pytest
import torch

from tests.models.networks import write_small_mnist


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """What is computed is then the same in every run."""
    torch.set_num_threads(1)


@pytest.fixture
def small_mnist(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set in MNIST's format, of 250 and 100 images; the package expects these sizes."""
    monkeypatch.setattr("models.datasets.TRAINING_FILE_IMAGES", 250)
    monkeypatch.setattr("models.datasets.TEST_IMAGES", 100)
    monkeypatch.setattr("models.datasets.VALIDATION_IMAGES", 50)
    folder = tmp_path_factory.mktemp("mnist")
    write_small_mnist(folder)
    return folder
