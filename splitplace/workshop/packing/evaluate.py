"""Measures a packed application again, and says what was measured otherwise than it is stored."""

from collections.abc import Iterator, Sequence

from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore, verify
from splitplace.workshop.datasets import Subset
from splitplace.workshop.packing.packer import is_layer_chain
from splitplace.workshop.packing.variants import EQUAL_LOGITS, Measured, measure

ACCURACY_TOLERANCE = 0.0005
"""Five images of ten thousand: other processors round otherwise."""


def evaluate(store: ModelStore, name: str, test: Subset) -> tuple[Application, tuple[Measured, ...]]:
    """Verifies every fragment of an application and measures its variants on the test images.

    Raises:
        StoreError: The application or a fragment is missing or damaged.
    """
    application = store.application(name)
    for fragment in application.fragments:
        verify(store.fragment_path(fragment.sha256), fragment.sha256)
    return application, measure(application, store.fragment_path, test)


def discrepancies(application: Application, results: Sequence[Measured]) -> Iterator[str]:
    """Sentences that say what was measured otherwise than it is stored."""
    for variant, result in zip(application.variants, results, strict=True):
        if abs(variant.accuracy - result.accuracy) > ACCURACY_TOLERANCE:
            yield f"{variant.name}: accuracy is {result.accuracy:.4f}, stored is {variant.accuracy:.4f}"
        if variant.accuracy_images != result.images:
            yield f"{variant.name}: measured on {result.images} images, stored is {variant.accuracy_images}"
        if is_layer_chain(variant.name) and not result.difference_from_whole <= EQUAL_LOGITS:
            yield f"{variant.name}: logits differ from the whole's by {result.difference_from_whole:.1e}"
