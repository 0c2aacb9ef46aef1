"""What is shipped in the store works, on images that no network was trained on."""

from pathlib import Path

import numpy as np
import pytest

from bus.store import ModelStore, verify
from messages.application import Application
from models.datasets import Subset
from models.variants import EQUAL_LOGITS, measure

STORE = Path(__file__).parents[2] / "store"


@pytest.fixture(scope="module")
def mnist() -> Application:
    return ModelStore(STORE).application("mnist")


@pytest.fixture(scope="module")
def samples() -> Subset:
    with np.load(STORE / "mnist" / "samples.npz", allow_pickle=False) as archive:
        return Subset(archive["images"], archive["labels"])


def test_every_fragment_is_the_one_its_hash_names(mnist: Application) -> None:
    store = ModelStore(STORE)
    for fragment in mnist.fragments:
        verify(store.fragment_path(fragment.sha256), fragment.sha256)
    files = {path.stem for path in (STORE / "mnist" / "fragments").iterdir()}
    assert files == {fragment.sha256 for fragment in mnist.fragments}


def test_stored_accuracies_were_measured_on_the_full_test_set_and_hold_on_the_samples(
    mnist: Application, samples: Subset
) -> None:
    results = measure(mnist, ModelStore(STORE).fragment_path, samples)
    for variant, result in zip(mnist.variants, results, strict=True):
        assert variant.accuracy_images == 10_000
        assert variant.accuracy >= 0.985
        assert result.accuracy == pytest.approx(variant.accuracy, abs=0.02)
    layer = results[[variant.name for variant in mnist.variants].index("layer")]
    assert layer.difference_from_whole <= EQUAL_LOGITS


def test_the_stages_of_the_chain_and_the_branches_are_each_about_a_third_of_the_work(
    mnist: Application,
) -> None:
    def milliseconds(variant: str) -> list[float]:
        fragments = [mnist.fragment(stage.fragment) for stage in mnist.variant(variant).stages]
        return [fragment.milliseconds_per_image for fragment in fragments]

    (whole,) = milliseconds("whole")
    assert len(milliseconds("layer")) == 3
    assert max(*milliseconds("layer"), *milliseconds("semantic")) <= whole * (1 / 3 + 0.15)


def test_every_class_belongs_to_one_branch_and_no_branch_has_most_of_them(mnist: Application) -> None:
    groups = [stage.classes for stage in mnist.variant("semantic").stages]
    assert sorted(index for group in groups for index in group) == list(range(10))
    assert {len(group) for group in groups} == {3, 4}
