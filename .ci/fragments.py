"""Compare what every shipped fragment answers here with what it answered on another machine.

    python .ci/fragments.py record FILE     write inputs and outputs of every fragment
    python .ci/fragments.py compare FILE    run them again; exit code 1 where an answer differs

Inputs are sample images of each application (noise where it has none), and what the stage before made of them
on the first machine.
"""

import argparse
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.edge_node.runtime import FragmentRuntime, load_stage
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE

IMAGES = 8
ROUNDING = 1e-3
"""Largest difference of an output, as a share of the largest value: sums in another order, in 32 bits."""
STEP = 1 / 256
"""The same for a network in eight-bit integers: one step of its tensors. A sum near the middle between two
steps is rounded to either."""


def stages() -> Iterator[tuple[str, str, FragmentRuntime]]:
    """Load every stage of every variant: its name, the name of its source, and the fragment."""
    store = ModelStore(SHIPPED_STORE)
    for application in store.applications():
        folder = store.pieces_folder(application.name)
        for variant in application.variants:
            prefix = f"{application.name}/{variant.name}/"
            for stage in variant.stages:
                runtime = load_stage(application.stage_of(application.fragment(stage.fragment)), folder)
                yield prefix + stage.name, prefix + stage.source, runtime


def images(application: str, fragment: FragmentRuntime) -> NDArray[Any]:
    """Return sample images of an application, noise where it has none."""
    file = SHIPPED_STORE / application / "samples.npz"
    if not file.exists():
        return np.random.default_rng(1).integers(0, 256, (IMAGES, *fragment.input.shape), np.uint8)
    with np.load(file) as samples:
        return np.ascontiguousarray(samples["images"][:IMAGES])


def record(file: Path) -> int:
    """Write inputs and outputs of every fragment; return the exit code."""
    kept: dict[str, NDArray[Any]] = {}
    for name, source, runtime in stages():
        array = kept[f"{source}:out"] if f"{source}:out" in kept else images(name.split("/")[0], runtime)
        kept[f"{name}:in"], kept[f"{name}:out"] = array, runtime.run(array)
    np.savez(file, **kept)  # type: ignore[arg-type]
    print(f"{len(kept) // 2} fragments recorded on {platform.machine()}")
    return 0


def complaint(name: str, here: NDArray[Any], there: NDArray[Any], *, is_answer: bool) -> str | None:
    """Return what is wrong with the answers of one fragment, None where they agree."""
    if here.shape != there.shape:
        return f"{name}: shape {here.shape} instead of {there.shape}"
    if not difference(here, there) <= (STEP if "/int8/" in name else ROUNDING):
        return f"{name}: differs by {difference(here, there):.2g} of the largest value"
    if is_answer and not np.array_equal(here.argmax(axis=1), there.argmax(axis=1)):
        return f"{name}: other labels"
    return None


def difference(here: NDArray[Any], there: NDArray[Any]) -> float:
    """Return the largest difference, as a share of the largest value."""
    largest = float(np.abs(there.astype(np.float64)).max()) or 1.0
    return float(np.abs(here.astype(np.float64) - there).max()) / largest


def compare(file: Path) -> int:
    """Run every recorded fragment again; return the exit code."""
    found, worst, equal, count = list[str](), (0.0, ""), 0, 0
    with np.load(file) as kept:
        for name, _source, runtime in stages():
            here, there = runtime.run(kept[f"{name}:in"]), kept[f"{name}:out"]
            count += 1
            equal += np.array_equal(here, there)
            worst = max(worst, (difference(here, there), name))
            wrong = complaint(name, here, there, is_answer=here.ndim == 2)  # noqa: PLR2004 - logits of a batch
            found += [wrong] if wrong else []
        missing = len(kept.files) // 2 - count
    found += [f"{missing} fragments are missing here"] if missing else []
    print(*found, sep="\n", end="\n" if found else "")
    print(
        f"{count} fragments on {platform.machine()}: {equal} equal to the bit, "
        f"worst difference {worst[0]:.1e} of the largest value ({worst[1]})"
    )
    return 1 if found or not count else 0


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "compare"])
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    return record(given.file) if given.action == "record" else compare(given.file)


if __name__ == "__main__":
    sys.exit(main())
