from pathlib import Path
from shutil import copytree

import pytest

from splitplace.simulator.calibrate import solve
from splitplace.simulator.workload import paper, restricted, stored
from splitplace.storage.model_store import ModelStore, StoreError
from splitplace.storage.paths import SHIPPED_STORE


def test_the_papers_accuracies_have_the_printed_means() -> None:
    applications = paper().applications
    for variant, printed in (("layer", 0.9317), ("semantic", 0.8904), ("compressed", 0.8993)):
        mean = sum(application.variant(variant).accuracy for application in applications) / 3
        assert mean == pytest.approx(printed, abs=0.0005)


def test_work_is_what_was_measured_times_the_scale() -> None:
    # MNIST's first layer: 275.4 CPU s for 20,000 images; an item has 64.
    for scale in (1.0, 2.0):
        mnist = paper(scale, "paper-bzip2").applications[0]
        first = mnist.fragment(mnist.variant("layer").stages[0].fragment)
        assert first.milliseconds_per_image == pytest.approx(scale * 275_400 * 64 / 20_000)
        assert first.output.bytes_per_image == pytest.approx(434.6e6 * 64 / 20_000, rel=1e-6)


# Numbers of one image in each network: input, after each convolution, after the first dense layer, answer.
SHAPES = {
    "mnist": (28 * 28, 32 * 26 * 26, 64 * 24 * 24, 128, 10),
    "fashionmnist": (28 * 28, 64 * 26 * 26, 128 * 24 * 24, 256, 10),
    "cifar100": (3 * 32 * 32, 64 * 30 * 30, 128 * 28 * 28, 256, 100),
}


def test_without_packing_fragments_compute_and_send_tensors_as_they_are() -> None:
    for application in paper(1.0).applications:
        stages = application.variant("layer").stages
        fragments = [application.fragment(stage.fragment) for stage in stages]
        sent = [fragments[0].input, *(fragment.output for fragment in fragments)]
        for tensor, numbers in zip(sent, SHAPES[application.name], strict=True):
            assert tensor.bytes_per_image == pytest.approx(4 * numbers * 64, rel=0.06)
    mnist = paper(1.0).applications[0]
    work = [mnist.fragment(stage.fragment).milliseconds_per_image for stage in mnist.variant("layer").stages]
    assert work == pytest.approx([1000 * s * 64 / 20_000 for s in (2.3, 9.2, 12.1, 0.4)])


def test_without_packing_branches_cost_about_as_much_as_layers() -> None:
    for application, most in zip(paper().applications, (1.7, 1.1, 1.0), strict=True):
        layers, branches = (
            sum(
                application.fragment(stage.fragment).milliseconds_per_image
                for stage in application.variant(kind).stages
            )
            for kind in ("layer", "semantic")
        )
        assert 0.8 < branches / layers < most


def test_a_whole_network_computes_what_its_layers_do_without_packing() -> None:
    mnist = paper(1.0).applications[0]
    whole = mnist.fragment(mnist.variant("whole").stages[0].fragment)
    assert whole.milliseconds_per_image == pytest.approx(1000 * (2.3 + 9.2 + 12.1 + 0.4) * 64 / 20_000)


def test_every_fragment_fits_the_smallest_host_of_table_3() -> None:
    fragments = [fragment for application in paper().applications for fragment in application.fragments]
    assert max(fragment.peak_memory_bytes for fragment in fragments) < 4.172e9


def test_only_the_arms_that_may_be_chosen_are_left() -> None:
    workload = restricted(paper(), {"layer", "whole"})
    assert {v.name for a in workload.applications for v in a.variants} == {"layer", "whole"}
    with pytest.raises(ValueError, match="mnist has no variant among quantum"):
        restricted(paper(), {"quantum"})


def test_a_model_store_is_a_workload(tmp_path: Path) -> None:
    copytree(SHIPPED_STORE / "mnist", tmp_path / "mnist")
    workload = stored(ModelStore(tmp_path))
    assert [application.name for application in workload.applications] == ["mnist"]
    assert workload.images_per_item == 1
    with pytest.raises(StoreError):
        stored(ModelStore(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no application"):
        stored(ModelStore(tmp_path / "empty"))


def test_the_calibration_finds_the_factor_of_a_growing_function() -> None:
    assert solve(lambda factor: 7 * factor, 8.4, 0.001, (0.5, 2.0)) == pytest.approx(1.2, rel=0.002)
