"""The tiny application is what it claims to be, or the tests that build on it prove nothing."""

from pathlib import Path

import numpy as np
import pytest

from splitplace.edge_node.runtime import FragmentRuntime, load_stage
from splitplace.messages.application import Application, Stage, Variant
from splitplace.storage.model_store import ModelStore, verify
from tests.support.tiny_application import build_tiny_application, right_answers, tiny_images


def _runtime(store: ModelStore, application: Application, stage: Stage) -> FragmentRuntime:
    fragment = application.fragment(stage.fragment)
    return load_stage(application.stage_of(fragment), store.pieces_folder(application.name))


def _run(store: ModelStore, application: Application, variant: Variant, images: np.ndarray) -> np.ndarray:
    values = {"input": images}
    logits = np.full((len(images), 4), np.nan, np.float32)
    for stage in variant.stages:
        values[stage.name] = _runtime(store, application, stage).run(values[stage.source])
    for stage in variant.sinks:
        logits[:, list(stage.classes)] = values[stage.name]
    return logits


def test_every_variant_gives_exactly_the_right_answers(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    store = ModelStore(tmp_path)
    images, labels = tiny_images(200)
    assert set(labels) == {0, 1, 2, 3}
    for variant in application.variants:
        logits = _run(store, application, variant, images)
        np.testing.assert_array_equal(logits, right_answers(images))
        np.testing.assert_array_equal(logits.argmax(axis=1), labels)


@pytest.mark.parametrize("padding_bytes", [0, 5000])
def test_described_shapes_and_hashes_are_those_of_the_files(tmp_path: Path, padding_bytes: int) -> None:
    application = build_tiny_application(tmp_path, padding_bytes=padding_bytes)
    store = ModelStore(tmp_path)
    assert len(application.fragments) == 6
    for file in application.files:
        verify(store.file_path(file.sha256), file.sha256)
        assert store.file_path(file.sha256).stat().st_size == file.file_bytes
    for variant in application.variants:
        for stage in variant.stages:
            runtime, fragment = _runtime(store, application, stage), application.fragment(stage.fragment)
            assert (runtime.input, runtime.output) == (fragment.input, fragment.output)
            assert fragment.file_bytes > padding_bytes


def test_variants_share_files_and_some_pieces_have_a_weights_file(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    whole, *layers = (
        {file.sha256 for file in application.files_of(application.fragment(stage.fragment))}
        for name in ("whole", "layer")
        for stage in application.variant(name).stages
    )
    assert set.union(*layers) == whole
    assert [len(layer) for layer in layers] == [1, 2, 2]
    assert len(application.files) == 5 + 2 + 2, "branches share their first two pieces with the whole"


def test_two_builds_have_the_same_hashes(tmp_path: Path) -> None:
    first, second = (build_tiny_application(tmp_path / name) for name in ("first", "second"))
    assert first == second
