"""What tests of whole networks share. Those of published ones run where `make networks` has fetched them."""

import os
from pathlib import Path

import pytest

from tests.support.commands import measure_quickly

collect_ignore = [] if os.environ.get("SPLITPLACE_NETWORKS") else ["test_published.py"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_quickly(monkeypatch)


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own, with a file of four labels."""
    monkeypatch.chdir(tmp_path)
    Path("labels.txt").write_text("a\nb\nc\nd\n")
