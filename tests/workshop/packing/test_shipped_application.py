"""What is shipped in the store works, on images that no network was trained on."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest

from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore, verify
from splitplace.storage.paths import SHIPPED_STORE
from splitplace.workshop.datasets import Subset
from splitplace.workshop.packing.evaluation import EQUAL_LOGITS, is_cut_whole, measure
from splitplace.workshop.pieces.loaded import stage_runtime

STORE = SHIPPED_STORE
APPLICATIONS = {application.name: application for application in ModelStore(STORE).applications()}
SAMPLED = sorted(path.parent.name for path in STORE.glob("*/samples.npz") if path.parent.name in APPLICATIONS)
LEAST_ACCURACY: Mapping[str, Mapping[str, float]] = {
    "mnist": {"whole": 0.992, "layer": 0.992, "semantic": 0.987, "compressed": 0.985},
    "fashionmnist": {"whole": 0.93, "layer": 0.93, "semantic": 0.915, "compressed": 0.91},
    "resnet50": {"whole": 0.935, "layer": 0.935, "semantic": 0.91, "early-exit-1": 0.92},
    "cifar100": {"whole": 0.62, "layer": 0.62, "semantic": 0.57, "compressed": 0.57},
}
MAX_STORE_BYTES = 40_000_000


@pytest.fixture(params=sorted(APPLICATIONS))
def application(request: pytest.FixtureRequest) -> Application:
    return APPLICATIONS[request.param]


def test_the_store_is_small_enough_to_be_committed() -> None:
    assert sum(path.stat().st_size for path in STORE.rglob("*") if path.is_file()) <= MAX_STORE_BYTES


def test_every_fragment_is_in_pieces_and_every_file_the_one_its_hash_names(application: Application) -> None:
    store = ModelStore(STORE)
    for fragment in application.fragments:
        assert fragment.chain is not None
    for file in application.files:
        verify(store.file_path(file.sha256), file.sha256)
    files = {path.name for path in store.pieces_folder(application.name).iterdir()}
    assert files == {file.sha256 for file in application.files}


def test_stored_accuracies_were_measured_on_the_full_test_set_and_are_those_wanted(
    application: Application,
) -> None:
    least = LEAST_ACCURACY[application.name]
    for variant in application.variants:
        assert variant.accuracy_images == 10_000
        assert variant.accuracy >= least.get(variant.name, 0.0)


@pytest.mark.parametrize("name", SAMPLED)
def test_stored_accuracies_hold_on_the_samples(name: str) -> None:
    application = APPLICATIONS[name]
    with np.load(STORE / name / "samples.npz", allow_pickle=False) as archive:
        samples = Subset(archive["images"], archive["labels"])
    for variant, result in zip(
        application.variants,
        measure(application, partial(stage_runtime, ModelStore(STORE), application), samples),
        strict=True,
    ):
        assert result.accuracy == pytest.approx(variant.accuracy, abs=0.035)
        if is_cut_whole(variant):
            assert result.difference_from_whole <= EQUAL_LOGITS


def test_the_branches_are_each_about_a_third_of_the_work_and_the_chain_is_balanced(
    application: Application,
) -> None:
    def milliseconds(variant: str) -> list[float]:
        fragments = [application.fragment(stage.fragment) for stage in application.variant(variant).stages]
        return [fragment.milliseconds_per_image for fragment in fragments]

    (whole,) = milliseconds("whole")
    branches, stages = milliseconds("semantic"), milliseconds("layer")
    assert max(branches) <= whole * (1 / len(branches) + 0.15)
    assert max(stages) <= whole * (1 / len(stages) + 0.15)


def test_every_class_belongs_to_one_branch_and_no_branch_has_most_of_them(application: Application) -> None:
    groups = [stage.classes for stage in application.variant("semantic").stages]
    assert sorted(index for group in groups for index in group) == list(range(len(application.labels)))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
