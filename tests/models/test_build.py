"""From images to a packed application and back, by the two commands."""

import json
from pathlib import Path

import numpy as np
import pytest

from bus.store import ModelStore
from models import build, evaluate
from models.build import BuildError, check_chain
from models.datasets import load_mnist
from models.variants import Measured, variant_logits


@pytest.fixture
def store(small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("models.profile.ROUNDS", 2)
    monkeypatch.setattr("models.profile.SCORE_ROUNDS", 1)
    monkeypatch.setattr("models.train.WHOLE_WIDTHS", (8, 16))
    monkeypatch.setattr("models.train.BRANCH_WIDTHS", (8, 8))
    folders = ["--data", str(small_mnist), "--store", str(tmp_path / "store")]
    checkpoints = ["--checkpoints", str(tmp_path / "checkpoints")]
    assert build.main(["mnist", *folders, *checkpoints, "--epochs", "1", "--branches", "2"]) == 0
    return tmp_path / "store"


def test_a_build_can_be_evaluated_and_damage_is_noticed(store: Path, small_mnist: Path) -> None:
    application = ModelStore(store).application("mnist")
    shapes = {variant.name: [stage.source for stage in variant.stages] for variant in application.variants}
    assert shapes == {
        "whole": ["input"],
        "layer": ["input", "layer-0", "layer-1"],
        "semantic": ["input", "input"],
    }
    assert all(variant.accuracy_images == 100 for variant in application.variants)
    assert "models.build mnist --data DIR --store store --epochs 1 --seed 0" in (
        store / "mnist" / "TRAINING.md"
    ).read_text("utf-8")

    images = load_mnist(small_mnist).test.images
    whole, layer = (
        variant_logits(application.variant(name), ModelStore(store).fragment_path, images)
        for name in ("whole", "layer")
    )
    np.testing.assert_allclose(whole, layer, atol=1e-4)

    command = [str(store / "mnist"), "--data", str(small_mnist)]
    assert evaluate.main(command) == 0
    manifest = store / "mnist" / "manifest.json"
    stored = manifest.read_text("utf-8")
    wrong = json.loads(stored)
    wrong["variants"][0]["accuracy"] = 1 - wrong["variants"][0]["accuracy"] / 2
    manifest.write_text(json.dumps(wrong), "utf-8")
    assert evaluate.main(command) == 1
    manifest.write_text(stored, "utf-8")
    fragment = next((store / "mnist" / "fragments").iterdir())
    fragment.write_bytes(fragment.read_bytes()[:-1] + b"\0")
    assert evaluate.main(command) == 1


def test_a_folder_without_data_is_said_in_the_exit_code(tmp_path: Path) -> None:
    assert build.main(["mnist", "--data", str(tmp_path), "--store", str(tmp_path)]) == 1
    assert evaluate.main([str(tmp_path), "--data", str(tmp_path)]) == 1


def test_a_chain_that_answers_otherwise_is_not_packed() -> None:
    same = Measured("layer", 0.9, 10, 1e-5, (0.9,))
    check_chain([same])
    for difference in (1e-3, float("nan")):
        with pytest.raises(BuildError, match="differ"):
            check_chain([Measured("layer", 0.9, 10, difference, (0.9,))])
    check_chain([Measured("semantic", 0.9, 10, 5.0, (0.9,))])
