"""Measure fragments as a node runs them: ONNX Runtime, one thread."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitplace.edge_node.benchmark import measure_score
from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.onnx.places import Arrays, taken_inputs

BATCHES = (1, 2, 4, 8, 16, 32)
ROUNDS = 40
"""How often each call is timed. The best time counts, because disturbances only add time."""
LEAST_ROUNDS = 3
MOST_SECONDS = 60.0
"""For all fragments of an application: large networks are timed less often, and are disturbed less."""
SCORE_S = 3.0
"""How long to measure the machine's score: longer than a node does."""


class Timing(NamedTuple):
    """Cost of a call: `per_call + n * per_image` milliseconds for n images."""

    per_call: float
    per_image: float


def reference_score() -> float:
    """Return the benchmark score of this machine without disturbances."""
    return measure_score(SCORE_S)


def time_runtimes(
    runtimes: Sequence[FragmentRuntime], batches: Sequence[int] = BATCHES, most_s: float = MOST_SECONDS
) -> tuple[Timing, ...]:
    """Return the cost of a call of each fragment, fitted to its best time at each batch size.

    After `most_s` seconds no further round begins, unless there were too few.
    """
    return tuple(fit(best, batches) for best in _best_milliseconds(runtimes, batches, most_s))


def fit(milliseconds: Sequence[float], batches: Sequence[int]) -> Timing:
    """Fit a line without negative coefficients to measured calls, with least relative error."""
    times = np.array(milliseconds)
    rows = np.stack([np.ones(len(batches)), np.array(batches)], axis=1)
    (per_call, per_image), *_ = np.linalg.lstsq(rows / times[:, None], np.ones(len(batches)), rcond=None)
    if per_call < 0:  # larger batches cost more per image, as when they exceed the cache
        per_call, per_image = 0.0, np.mean(times / batches)
    if per_image < 0:  # the cost of an image is below the noise
        per_call, per_image = np.mean(times), 0.0
    return Timing(round(float(per_call), 4), round(float(per_image), 4))


def _best_milliseconds(
    runtimes: Sequence[FragmentRuntime], batches: Sequence[int], most_s: float
) -> list[list[float]]:
    """Return the least time of a call, for each fragment and batch size.

    Each round times all of them, so that a disturbance affects all alike. Inputs that are no places in tables
    are replaced in the first one. The clock is the CPU time of the calling thread, in which a one-thread
    session computes; the time of other processes does not count.
    """
    inputs: list[list[Arrays]] = [[_examples(runtime, batch) for batch in batches] for runtime in runtimes]
    best = [[float("inf")] * len(batches) for _ in runtimes]
    began, done = time.monotonic(), 0
    while done < ROUNDS and (done < LEAST_ROUNDS or time.monotonic() < began + most_s):
        done += 1
        for runtime, bundles, least in zip(runtimes, inputs, best, strict=True):
            for index, bundle in enumerate(bundles):
                started = time.thread_time()
                bundles[index] = taken_inputs(runtime.run_bundle, bundle)
                least[index] = min(least[index], 1000 * (time.thread_time() - started))
    return best


def _examples(runtime: FragmentRuntime, batch: int) -> dict[str, NDArray[Any]]:
    return {tensor.name: _example(tensor.spec, batch) for tensor in runtime.inputs}


def _example(spec: TensorSpec, batch: int) -> NDArray[Any]:
    random = np.random.default_rng(0)
    shape = (batch, *spec.shape)
    if spec.dtype == "uint8":
        return random.integers(0, 256, shape, dtype=np.uint8)
    if spec.dtype.startswith("int"):  # perhaps places in a table
        return random.integers(0, 2, shape).astype(spec.dtype)
    return random.standard_normal(shape).astype(spec.dtype)
