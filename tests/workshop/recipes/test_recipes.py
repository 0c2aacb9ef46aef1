"""The recipes: sizes of their networks, and a small MobileNetV2 from images to a packed application."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from rich.progress import Progress

from splitplace.errors import ConfigurationError
from splitplace.storage.model_store import ModelStore, StoreError
from splitplace.storage.paths import SHIPPED_STORE
from splitplace.workshop.compression.pruning import flops_per_image
from splitplace.workshop.datasets import PUBLISHED, Dataset
from splitplace.workshop.networks.common import Classifier, Pixels
from splitplace.workshop.networks.designs import MobileNet
from splitplace.workshop.networks.mobilenet_v2 import GROUPS, MobileNetV2
from splitplace.workshop.packing.evaluation import variant_logits
from splitplace.workshop.pieces.loaded import stage_runtime
from splitplace.workshop.recipes.recipes import RECIPES, Recipe
from splitplace.workshop.recipes.teacher import SHARE, soft_targets
from splitplace.workshop.recipes.trainings import Workbench, train_whole
from splitplace.workshop.training.loop import TrainingSchedule
from tests.support.commands import exit_code, measure_quickly
from tests.support.small_networks import easy_dataset, easy_subset, published_small_mnist

MILLIONS_OF_WEIGHTS = {"resnet50": 23.5, "mobilenet": 2.2, "inception": 21.8}
TEACHER = "mnist"
"""A shipped application that takes the same pictures and has as many classes as the recipes below."""

ONE_EPOCH = TrainingSchedule(epochs=1)


FEW_GROUPS = [group._replace(blocks=1) for group in (GROUPS[0], GROUPS[2], GROUPS[3], GROUPS[5])]


@dataclass(frozen=True)
class Shallow(MobileNet):
    """Four blocks, between which maps are halved: seconds to train and export."""

    def build(self, outputs: int, pixels: Pixels, side: int) -> Classifier:
        return MobileNetV2(outputs, pixels=pixels, side=side, width=self.width, groups=FEW_GROUPS)


SMALL = replace(
    RECIPES["mobilenet"],
    dataset="mnist",
    design=Shallow(0.2),
    teacher=TEACHER,
    branches=2,
    schedule=ONE_EPOCH,
    semantic_schedule=ONE_EPOCH,
    compressed_schedule=ONE_EPOCH,
    compressed_flops=0.8,
    bfloat16=frozenset({"semantic", "compressed"}),
)


@pytest.mark.parametrize("name", MILLIONS_OF_WEIGHTS)
def test_the_networks_of_the_paper_have_their_full_width(name: str) -> None:
    weights = sum(parameter.numel() for parameter in RECIPES[name].whole().parameters())
    assert round(weights / 1e6, 1) == MILLIONS_OF_WEIGHTS[name]


@pytest.mark.parametrize("name", RECIPES)
def test_a_branch_from_random_weights_does_its_share_of_the_work_at_most(name: str) -> None:
    recipe = RECIPES[name]
    image = torch.zeros(1, *PUBLISHED[recipe.dataset].shape, dtype=torch.uint8)
    outputs = -(-len(recipe.labels) // recipe.branches)
    share = flops_per_image(recipe.branch(outputs), image) / flops_per_image(recipe.whole(), image)
    assert share <= 0.9 / recipe.branches


def test_soft_targets_are_labels_mixed_with_the_answers_of_the_teacher(tmp_path: Path) -> None:
    training = easy_subset(24)
    store = ModelStore(SHIPPED_STORE)
    found = soft_targets(store, TEACHER, training, tmp_path)
    application = store.application(TEACHER)
    load = partial(stage_runtime, store, application)
    logits = variant_logits(application, application.variant("whole"), load, training.images)
    answers = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    labels = np.eye(10)[training.labels]
    np.testing.assert_allclose(found, SHARE * answers + (1 - SHARE) * labels, atol=1e-6)


def test_the_answers_of_a_teacher_are_kept_for_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(SHIPPED_STORE)
    first = soft_targets(store, TEACHER, easy_subset(24), tmp_path)
    other = soft_targets(store, TEACHER, easy_subset(24, seed=1), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.delattr("splitplace.workshop.recipes.teacher.variant_logits")
    np.testing.assert_array_equal(soft_targets(store, TEACHER, easy_subset(24), tmp_path), first)
    np.testing.assert_array_equal(soft_targets(store, TEACHER, easy_subset(24, seed=1), tmp_path), other)


def _bench(recipe: Recipe, folder: Path, data: Dataset) -> Workbench:
    return Workbench(recipe, data, folder / "checkpoints", Progress(disable=True), ModelStore(folder))


def test_a_network_of_another_version_of_its_teacher_is_trained_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = replace(_bench(SMALL, tmp_path, easy_dataset(20)), store=ModelStore(SHIPPED_STORE))
    train_whole(bench)
    monkeypatch.delattr("splitplace.workshop.recipes.trainings.soft_targets")
    train_whole(bench)  # only reads its checkpoint
    monkeypatch.setattr("splitplace.workshop.recipes.trainings.version_of", lambda *_: "another")
    with pytest.raises(NameError, match="soft_targets"):
        train_whole(bench)


def test_a_teacher_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=TEACHER):
        train_whole(_bench(SMALL, tmp_path, easy_dataset(20)))


def test_early_exits_of_another_family_are_refused(tmp_path: Path) -> None:
    recipe = replace(SMALL, teacher="", early_exits=(1,))
    with pytest.raises(ConfigurationError, match="need a residual network"):
        train_whole(_bench(recipe, tmp_path, easy_dataset(20)))


def test_only_the_parts_that_the_recipe_names_compute_in_bfloat16(tmp_path: Path) -> None:
    bench = _bench(replace(SMALL, bfloat16=frozenset({"semantic"})), tmp_path, easy_dataset(20))
    layer = torch.nn.Linear(2, 2)
    with bench.arithmetic("semantic"):
        assert layer(torch.ones(1, 2)).dtype == torch.bfloat16
    with bench.arithmetic("whole"):
        assert layer(torch.ones(1, 2)).dtype == torch.float32


@pytest.fixture
def small_recipe() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        measure_quickly(patch)
        patch.setattr("splitplace.workshop.compression.pruning.STEPS", 10)
        patch.setitem(cast("dict[str, Recipe]", RECIPES), "mobilenet", SMALL)
        yield


@pytest.mark.usefixtures("small_recipe")
def test_a_mobilenet_is_built_whole_cut_branched_and_pruned(tmp_path: Path) -> None:
    with published_small_mnist(tmp_path / "mnist") as data:
        places = ("--data", data, "--store", tmp_path / "store", "--checkpoints", tmp_path / "checkpoints")
        assert exit_code("models", "build", "mobilenet", *places) == 0
        assert exit_code("models", "evaluate", "mobilenet", *places[:4]) == 0
    application = ModelStore(tmp_path / "store").application("mobilenet")
    shapes = {variant.name: [stage.source for stage in variant.stages] for variant in application.variants}
    assert shapes == {
        "whole": ["input"],
        "layer": ["input", "layer-0", "layer-1"],
        "semantic": ["input", "input"],
        "compressed": ["input"],
    }
    assert application.input.shape == (1, 28, 28), "the network enlarges the pictures"
    report = (tmp_path / "store" / "mobilenet" / "TRAINING.md").read_text("utf-8")
    assert "Whole network: MobileNetV2 of 0.2 times its published widths, which first enlarges" in report
    assert "in bfloat16: compressed, semantic." in report
    assert f"the answers of the whole network of `{TEACHER}`" in report.replace("\n", " ")
