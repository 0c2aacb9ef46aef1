"""Fixtures of the workshop's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.small_networks import published_small_mnist


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """What is computed is then the same in every run."""
    torch.set_num_threads(1)


@pytest.fixture
def small_mnist(tmp_path: Path) -> Iterator[Path]:
    """A folder with a data set in MNIST's format, of 250 and 100 images; the package expects these sizes."""
    with published_small_mnist(tmp_path / "mnist") as folder:
        yield folder
