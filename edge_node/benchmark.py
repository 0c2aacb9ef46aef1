"""How fast is this node? Runs a small reference network and counts."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from splitplace.edge_node.runtime import FragmentRuntime

REFERENCE_FILE: Final = Path(__file__).with_name("benchmark.onnx")
"""Made by `python -m splitplace.workshop.recipes.reference_network`."""
REFERENCE_FLOPS: Final = 28_901_376
"""Floating-point operations of one run of it on one picture."""
WARM_UP_SHARE: Final = 0.25


def measure_score(
    seconds: float = 0.3, clock: Callable[[], float] = time.perf_counter, *, windows: int = 3
) -> float:
    """Effective speed of one thread in GFLOP/s: work done by wall time, so a CPU quota counts in full.

    A node of score s takes `reference_score / s` times as long for a fragment as its manifest says.

    Args:
        seconds: How long a measurement takes, after a warm-up of a quarter of that. Should span many periods
            of a CPU quota: the error is about one period in all of them.
        clock: In seconds. Wall time for a node; CPU time of the thread tells the machine's own speed.
        windows: How often to measure; the best counts, because what a device does besides while it boots
            passes, and a node that is judged too slow gets no work that would show otherwise.

    Raises:
        FragmentError: The reference network does not load or run.
    """
    runtime = FragmentRuntime(REFERENCE_FILE)
    picture = np.full((1, *runtime.input.shape), 0.5, np.dtype(runtime.input.dtype))
    _runs_for(seconds * WARM_UP_SHARE, runtime, picture, clock)  # also uses up what the quota has saved
    rates = []
    for _ in range(windows):
        runs, elapsed = _runs_for(seconds, runtime, picture, clock)
        rates.append(runs / elapsed)
    return max(rates) * REFERENCE_FLOPS / 1e9


def _runs_for(
    seconds: float, runtime: FragmentRuntime, picture: np.ndarray, clock: Callable[[], float]
) -> tuple[int, float]:
    started = clock()
    runs, elapsed = 0, 0.0
    while elapsed < seconds:
        runtime.run(picture)
        runs += 1
        elapsed = clock() - started
    return runs, elapsed
