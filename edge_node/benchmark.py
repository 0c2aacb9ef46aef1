"""Measures this node: speed of a small reference network and of the tensor codec."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from splitplace.edge_node.runtime import FragmentRuntime, load_fragment
from splitplace.messages.frames import encode_tensor

REFERENCE_FILE: Final = Path(__file__).with_name("benchmark.onnx")
"""Made by `python -m splitplace.workshop.recipes.reference_network`."""
REFERENCE_FLOPS: Final = 28_901_376
"""Floating-point operations of one run of it on one picture."""
WARM_UP_SHARE: Final = 0.25
CODEC_RUNS: Final = 4


def measure_score(
    seconds: float = 0.3, clock: Callable[[], float] = time.perf_counter, *, windows: int = 3
) -> float:
    """Return the effective speed of one thread in GFLOP/s: work by wall time, so a CPU quota counts in full.

    A node of score s takes `reference_score / s` times as long for a fragment as its manifest says.

    Args:
        seconds: How long a measurement takes, after a warm-up of a quarter of that. Should span many periods
            of a CPU quota: the error is about one period in all of them.
        clock: In seconds. Wall time for a node; CPU time of the thread tells the machine's own speed.
        windows: How often to measure; the best counts, because what a device does besides while it boots
            passes; a node with too low a score would get no work that could correct it.

    Raises:
        FragmentError: The reference network does not load or run.
    """
    runtime = load_fragment(REFERENCE_FILE)
    picture = np.full((1, *runtime.input.shape), 0.5, np.dtype(runtime.input.dtype))
    _runs_for(seconds * WARM_UP_SHARE, runtime, picture, clock)  # also uses up what the quota has saved
    rates = []
    for _ in range(windows):
        runs, elapsed = _runs_for(seconds, runtime, picture, clock)
        rates.append(runs / elapsed)
    return max(rates) * REFERENCE_FLOPS / 1e9


def measure_codec(*, compress: bool) -> float:
    """Return the speed of the tensor codec in MB/s, on a megabyte like activations after a ReLU."""
    values = np.random.default_rng(0).standard_normal(1 << 18, dtype=np.float32).clip(min=0)
    started_s = time.perf_counter()
    for _ in range(CODEC_RUNS):
        encode_tensor(values, compress=compress)
    return CODEC_RUNS * values.nbytes / 1e6 / (time.perf_counter() - started_s)


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
