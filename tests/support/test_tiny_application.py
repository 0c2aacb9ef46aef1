"""The tiny application is what it claims to be, or the tests that build on it prove nothing."""

from pathlib import Path

import numpy as np

from splitplace.edge_node.runtime import load_fragment
from splitplace.messages.application import Variant
from splitplace.storage.model_store import ModelStore, verify
from tests.support.tiny_application import build_tiny_application, right_answers, tiny_images


def _run(store: ModelStore, variant: Variant, images: np.ndarray, classes: int) -> np.ndarray:
    values = {"input": images}
    logits = np.full((len(images), classes), np.nan, np.float32)
    for stage in variant.stages:
        runtime = load_fragment(store.file_path(stage.fragment))
        values[stage.name] = runtime.run(values[stage.source])
    for stage in variant.sinks:
        logits[:, list(stage.classes)] = values[stage.name]
    return logits


def test_every_variant_gives_exactly_the_right_answers(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    store = ModelStore(tmp_path)
    images, labels = tiny_images(200)
    assert set(labels) == {0, 1, 2, 3}
    for variant in application.variants:
        logits = _run(store, variant, images, 4)
        np.testing.assert_array_equal(logits, right_answers(images))
        np.testing.assert_array_equal(logits.argmax(axis=1), labels)


def test_described_shapes_and_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    store = ModelStore(tmp_path)
    assert len(application.fragments) == 6
    for fragment in application.fragments:
        path = store.file_path(fragment.sha256)
        verify(path, fragment.sha256)
        runtime = load_fragment(path)
        assert (runtime.input, runtime.output) == (fragment.input, fragment.output)
        assert path.stat().st_size == fragment.file_bytes


def test_two_builds_have_the_same_hashes(tmp_path: Path) -> None:
    first, second = (build_tiny_application(tmp_path / name) for name in ("first", "second"))
    assert first == second
