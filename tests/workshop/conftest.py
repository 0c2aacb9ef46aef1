"""Fixtures of the workshop's tests."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from splitplace.workshop.datasets import PUBLISHED, Published
from tests.support.small_networks import write_small_mnist


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """What is computed is then the same in every run."""
    torch.set_num_threads(1)


@pytest.fixture
def small_mnist(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set in MNIST's format, of 250 and 100 images; the package expects these sizes."""
    small = replace(PUBLISHED["mnist"], training_file_images=250, test_images=100, held_out=50)
    monkeypatch.setitem(cast("dict[str, Published]", PUBLISHED), "mnist", small)
    folder = tmp_path_factory.mktemp("mnist")
    write_small_mnist(folder)
    return folder
