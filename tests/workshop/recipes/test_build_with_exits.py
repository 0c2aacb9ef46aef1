"""A recipe with bottleneck blocks and early exits, from images to a packed application."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from splitplace.storage.model_store import ModelStore
from splitplace.workshop.datasets import load_published
from splitplace.workshop.networks.designs import ResNet
from splitplace.workshop.networks.early_exits import EarlyExits
from splitplace.workshop.networks.resnet_v2 import ResNetV2
from splitplace.workshop.packing.evaluation import variant_logits
from splitplace.workshop.pieces.loaded import stage_runtime
from splitplace.workshop.recipes.recipes import RECIPES, Recipe
from splitplace.workshop.training.loop import TrainingSchedule
from tests.support.commands import exit_code, measure_quickly
from tests.support.small_networks import published_small_mnist

SMALL = replace(
    RECIPES["resnet50"],
    name="mnist",
    dataset="mnist",
    storage="float32",
    design=ResNet((8, 16), (2, 2), "halving", bottlenecks=True),
    early_exits=(1, 3),
    branch_design=ResNet((8, 8), (1, 1), "halving", bottlenecks=True),
    branches=2,
    schedule=TrainingSchedule(epochs=1),
    semantic_schedule=TrainingSchedule(epochs=1),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModelStore, Path, Path]]:
    """The store, the checkpoints and the data of a finished build."""
    folder = tmp_path_factory.mktemp("exits")
    with pytest.MonkeyPatch.context() as patch, published_small_mnist(folder / "mnist") as data:
        measure_quickly(patch)
        patch.setitem(cast("dict[str, Recipe]", RECIPES), "mnist", SMALL)
        store, checkpoints = folder / "store", folder / "checkpoints"
        places = ("--data", data, "--store", store, "--checkpoints", checkpoints)
        assert exit_code("models", "build", "mnist", *places) == 0
        yield ModelStore(store), checkpoints, data


def test_an_early_exit_shares_the_pieces_of_the_network_before_it(
    built: tuple[ModelStore, Path, Path],
) -> None:
    application = built[0].application("mnist")
    assert [variant.name for variant in application.variants] == [
        "whole",
        "layer",
        "early-exit-1",
        "early-exit-2",
        "semantic",
    ]
    whole = application.chain("whole").chain.pieces
    first, second = (application.chain(f"early-exit-{number}").chain.pieces for number in (1, 2))
    assert first[:-1] == whole[: len(first) - 1]
    assert second[:-1] == whole[: len(second) - 1]
    assert len(first) < len(second)
    assert {first[-1], second[-1]}.isdisjoint(whole)
    exits = [variant for variant in application.variants if variant.kind == "early-exit"]
    assert len(exits) == len(SMALL.early_exits)
    assert all(variant.accuracy_images > 0 and variant.most_stages for variant in exits)


def test_an_early_exit_gives_the_logits_of_the_trained_head(built: tuple[ModelStore, Path, Path]) -> None:
    store, checkpoints, folder = built
    application = store.application("mnist")
    images = load_published("mnist", folder).test.images[:8]
    network = SMALL.whole()
    assert isinstance(network, ResNetV2)
    exits = EarlyExits(network, SMALL.early_exits)
    stored = torch.load(checkpoints / "mnist" / "whole.pt", weights_only=True)
    exits.load_state_dict(stored["network"])
    with torch.inference_mode():
        expected = exits.eval().all_logits(torch.from_numpy(images))
    for name, logits in zip(("early-exit-1", "early-exit-2", "whole"), expected, strict=True):
        found = variant_logits(
            application,
            application.variant(name),
            lambda fragment: stage_runtime(store, application, fragment),
            images,
        )
        torch.testing.assert_close(torch.from_numpy(found), logits, rtol=1e-3, atol=1e-3)


def test_the_report_tells_of_exits_and_not_of_variants_that_are_missing(
    built: tuple[ModelStore, Path, Path],
) -> None:
    text = (built[0].folder("mnist") / "TRAINING.md").read_text()
    assert "Early exits after blocks 1 and 3" in text
    assert "pruned to" not in text
