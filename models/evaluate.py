"""Measures a packed application again: `python -m models.evaluate store/mnist --data DIR`.

Fails if a fragment is not the one its hash names, if the chain's logits differ from the whole network's, or
if a stored accuracy is not reproduced.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from bus.store import ModelStore, StoreError, verify
from messages.application import Application
from models.datasets import DatasetError, Subset, load_mnist
from models.report import variants_table
from models.variants import EQUAL_LOGITS, Measured, measure

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
        if variant.name == "layer" and not result.difference_from_whole <= EQUAL_LOGITS:
            yield f"layer: logits differ from the whole network's by {result.difference_from_whole:.1e}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m models.evaluate", description=__doc__)
    parser.add_argument("application", type=Path, help="folder of the application in a model store")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz or the IDX files")
    arguments = parser.parse_args(argv)
    console = Console()
    folder: Path = arguments.application.resolve()
    try:
        test = load_mnist(arguments.data).test
        application, results = evaluate(ModelStore(folder.parent), folder.name, test)
    except (DatasetError, StoreError) as error:
        console.print(f"error: {error}", style="red")
        return 1
    console.print(variants_table(application, results))
    found = list(discrepancies(application, results))
    for sentence in found:
        console.print(sentence, style="red")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
