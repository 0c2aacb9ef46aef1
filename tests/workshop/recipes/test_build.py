"""From images to a packed application and back, by the commands."""

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from splitplace.messages.application import Application, VariantKind
from splitplace.messages.tensors import DType
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.compression.bottleneck import Narrowing
from splitplace.workshop.datasets import load_published
from splitplace.workshop.networks.designs import ResNet
from splitplace.workshop.packing.evaluation import BOTTLENECK, Measured, variant_logits
from splitplace.workshop.packing.packer import PackingError, check_chains
from splitplace.workshop.pieces.loaded import stage_runtime
from splitplace.workshop.recipes.recipes import RECIPES, Recipe
from splitplace.workshop.training.loop import TrainingSchedule
from tests.support.commands import exit_code, measure_quickly
from tests.support.message_examples import application
from tests.support.small_networks import published_small_mnist


def _run(*arguments: str | Path) -> int:
    """Exit code of `splitplace models ...`."""
    return exit_code("models", *arguments)


@pytest.fixture(scope="module", autouse=True)
def _small_recipe() -> Iterator[None]:
    small = replace(
        RECIPES["mnist"],
        design=ResNet((8, 24), (2, 2), "halving"),
        branch_design=ResNet((8, 8), (2, 2), "halving"),
        branches=2,
        schedule=TrainingSchedule(epochs=1),
        semantic_schedule=TrainingSchedule(epochs=1),
        compressed_schedule=TrainingSchedule(epochs=1),
        bottleneck_schedule=TrainingSchedule(epochs=1),
        bottlenecks={"blocks.1": Narrowing(4)},
        compressed_flops=0.8,
    )
    with pytest.MonkeyPatch.context() as patch:
        measure_quickly(patch)
        patch.setitem(cast("dict[str, Recipe]", RECIPES), "mnist", small)
        yield


@pytest.fixture(scope="module")
def small_mnist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As everywhere, but one for all tests of this file: they build once."""
    with published_small_mnist(tmp_path_factory.mktemp("data") / "mnist") as folder:
        yield folder


@pytest.fixture(scope="module")
def built(small_mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    checkpoints = folder / "checkpoints"
    folders = ("--data", small_mnist, "--checkpoints", checkpoints)
    assert _run("train", "mnist", *folders) == 0
    assert [path.name for path in (checkpoints / "mnist").iterdir()] == ["whole.pt"]
    whole = (checkpoints / "mnist" / "whole.pt").read_bytes()
    assert _run("build", "mnist", *folders, "--store", folder / "store") == 0
    assert (checkpoints / "mnist" / "whole.pt").read_bytes() == whole, "a finished training was repeated"
    return folder / "store"


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(built, tmp_path / "store"))


def test_a_build_can_be_evaluated_and_damage_is_noticed(store: Path, small_mnist: Path) -> None:
    application = ModelStore(store).application("mnist")
    shapes = {variant.name: [stage.source for stage in variant.stages] for variant in application.variants}
    assert shapes == {
        "whole": ["input"],
        "layer": ["input", "layer-0", "layer-1"],
        "semantic": ["input", "input"],
        "compressed": ["input"],
        "layer-bottleneck": ["input", "layer-bottleneck-0"],
        "int8": ["input"],
    }
    assert all(variant.accuracy_images == 100 for variant in application.variants)
    report = (store / "mnist" / "TRAINING.md").read_text("utf-8")
    assert "models build mnist --data DIR --store store --epochs 1 --seed 0" in report

    crossing = application.fragment(application.variant("layer-bottleneck").stages[0].fragment).output
    assert crossing.dtype == "uint8"

    images = load_published("mnist", small_mnist).test.images
    load = partial(stage_runtime, ModelStore(store), application)
    whole, layer = (
        variant_logits(application, application.variant(name), load, images) for name in ("whole", "layer")
    )
    np.testing.assert_allclose(whole, layer, atol=1e-4)

    command = ("evaluate", "mnist", "--store", store, "--data", small_mnist)
    assert _run(*command) == 0
    manifest = store / "mnist" / "manifest.json"
    stored = manifest.read_text("utf-8")
    wrong = json.loads(stored)
    wrong["variants"][0]["accuracy"] = 1 - wrong["variants"][0]["accuracy"] / 2
    manifest.write_text(json.dumps(wrong), "utf-8")
    assert _run(*command) == 1
    manifest.write_text(stored, "utf-8")
    fragment = next((store / "mnist" / "pieces").iterdir())
    fragment.write_bytes(fragment.read_bytes()[:-1] + b"\0")
    assert _run(*command) == 1


def test_an_application_of_another_name_is_measured_on_the_published_set_of_its_classes(
    store: Path, small_mnist: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ModelStore(store)
    digits = models.application("mnist").model_copy(update={"name": "my-digits"})
    models.save(digits, [models.file_path(file.sha256).read_bytes() for file in digits.files])
    assert _run("evaluate", "my-digits", "--store", store, "--data", small_mnist) == 0
    capsys.readouterr()
    assert _run("evaluate", "my-digits", "--store", store, "--data", store) == 1
    assert "not named like a class" in capsys.readouterr().err


def test_the_accuracy_of_a_variant_is_that_of_its_class_groups_together(
    store: Path, small_mnist: Path
) -> None:
    labels = load_published("mnist", small_mnist).test.labels
    semantic = ModelStore(store).application("mnist").variant("semantic")
    right = sum((stage.accuracy or 0.0) * np.isin(labels, stage.classes).sum() for stage in semantic.stages)
    assert right / len(labels) == pytest.approx(semantic.accuracy)
    whole = ModelStore(store).application("mnist").variant("whole")
    assert whole.stages[0].accuracy == whole.accuracy


def test_a_folder_without_data_is_said_in_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("build", "train"):
        assert _run(command, "mnist", "--data", tmp_path) == 1
        assert "Expected there: mnist.npz" in capsys.readouterr().err


def test_an_application_that_is_not_there_is_said_in_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("evaluate", "mnist", "--data", tmp_path, "--store", tmp_path) == 1
    assert "has no application 'mnist'" in capsys.readouterr().err


def crossing(dtype: DType) -> Application:
    """The example, with tensors of a type between its fragments instead of float16."""
    example = application()
    fragments = tuple(
        fragment.model_copy(
            update={
                end: spec.model_copy(update={"dtype": dtype})
                for end, spec in (("input", fragment.input), ("output", fragment.output))
                if spec.dtype == "float16"
            }
        )
        for fragment in example.fragments
    )
    return example.model_copy(update={"fragments": fragments})


@pytest.mark.parametrize(
    ("kind", "name", "dtype", "difference", "fails"),
    [
        ("layer", "layer", "float32", 1e-5, False),
        ("layer", "layer", "float32", 1e-3, True),
        ("layer", "layer", "float16", 1e-3, False),
        ("layer", "layer", "float16", 2e-2, True),
        ("layer", "layer-2", "float32", float("nan"), True),
        ("layer", BOTTLENECK, "float32", 5.0, False),
        ("semantic", "semantic", "float32", 5.0, False),
    ],
)
def test_a_chain_is_packed_only_if_it_gives_the_answers_of_the_whole(
    kind: VariantKind, name: str, dtype: DType, difference: float, *, fails: bool
) -> None:
    example = crossing(dtype)
    variant = example.variants[0].model_copy(update={"name": name, "kind": kind})
    draft = example.model_copy(update={"variants": (variant,)})
    with pytest.raises(PackingError, match="differ") if fails else nullcontext():
        check_chains(draft, [Measured(name, 0.9, 10, difference, (0.9,))])
