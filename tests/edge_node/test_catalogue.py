"""What a node knows of fragments and expects them to cost."""

from pathlib import Path

import pytest

from splitplace.edge_node.catalogue import MAX_APPLICATIONS, Catalogue, CatalogueFullError
from splitplace.edge_node.timings import Line
from tests.support.tiny_application import build_tiny_application


def test_a_slower_node_expects_proportionally_longer(tmp_path: Path) -> None:
    application = build_tiny_application(
        tmp_path, milliseconds_per_call=2.0, milliseconds_per_image=0.5, reference_score=60.0
    )
    fragment = application.variant("layer").stages[0].fragment
    for score, factor in [(60.0, 1.0), (20.0, 3.0)]:
        catalogue = Catalogue(score)
        catalogue.add_application(application)
        assert catalogue.expected_ms(fragment, 10, None) == pytest.approx(factor * (2.0 + 10 * 0.5))
        assert catalogue.expected_ms(fragment, 10, Line(1.5, 0.7)) == 1.5 + 10 * 0.7


def test_an_unknown_fragment_costs_nothing_and_an_application_is_replaced(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    fragment = application.fragments[0].sha256
    catalogue = Catalogue(50.0)
    assert catalogue.described(fragment) is None
    assert catalogue.expected_ms(fragment, 10, None) == 0.0
    catalogue.add_application(application)
    found = catalogue.described(fragment)
    assert found is not None
    assert found.fragment == application.fragments[0]
    bigger = application.fragments[0].model_copy(update={"peak_memory_bytes": 7})
    catalogue.add_application(application.model_copy(update={"fragments": (bigger,)}))
    found = catalogue.described(fragment)
    assert found is not None
    assert found.fragment == bigger
    assert catalogue.described(application.fragments[1].sha256) is None


def test_fragments_that_share_pieces_are_stored_together_and_as_old_as_their_oldest_file(
    tmp_path: Path,
) -> None:
    application = build_tiny_application(tmp_path)
    catalogue = Catalogue(50.0)
    catalogue.add_application(application)
    (whole,) = (stage.fragment for stage in application.variant("whole").stages)
    layers = [stage.fragment for stage in application.variant("layer").stages]
    files = [file.sha256 for file in application.files_of(application.fragment(whole))]
    assert catalogue.stored(()) == ()
    assert catalogue.stored(files) == (layers[0], layers[1], whole, layers[2])
    assert catalogue.stored(files[:-1]) == tuple(layers[:2])
    assert catalogue.stored(files[-1:]) == ()


def test_a_node_knows_which_files_and_pieces_a_fragment_has(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    catalogue = Catalogue(50.0)
    catalogue.add_application(application)
    for fragment in application.fragments:
        found = catalogue.described(fragment.sha256)
        assert found is not None
        assert found.files == application.files_of(fragment)
        assert found.stage == application.stage_of(fragment)


def test_the_number_of_applications_is_bounded(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    catalogue = Catalogue(50.0)
    for number in range(MAX_APPLICATIONS):
        catalogue.add_application(application.model_copy(update={"name": f"a{number}"}))
    catalogue.add_application(application.model_copy(update={"name": "a0"}))
    with pytest.raises(CatalogueFullError):
        catalogue.add_application(application.model_copy(update={"name": "one-too-many"}))


def test_the_largest_micro_batch_of_any_variant_of_any_application_is_known(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    whole, layer, semantic = application.variants
    larger = application.model_copy(
        update={"name": "larger", "variants": (whole.model_copy(update={"micro_batch": 32}), layer)}
    )
    catalogue = Catalogue(50.0)
    for each in (larger, application):
        catalogue.add_application(each)
    sizes = {found.fragment.sha256: found.micro_batch for found in catalogue}
    assert sizes[whole.stages[0].fragment] == 32
    assert sizes[layer.stages[0].fragment] == layer.micro_batch
    assert sizes[semantic.stages[0].fragment] == semantic.micro_batch
