"""Measures fragments as a node would run them: ONNX Runtime, one thread."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from bus.store import sha256_of
from edge_node.benchmark import measure_score
from edge_node.runtime import FragmentRuntime
from messages.application import Fragment, TensorSpec
from models.export import file_content
from models.graph import Graph

BATCHES = (1, 2, 4, 8, 16, 32)
ROUNDS = 30
"""How often each call is timed; the best counts, as what disturbs a measurement only ever adds to it."""
SCORE_ROUNDS = 10


class Timing(NamedTuple):
    """What a call costs: `per_call + n * per_image` milliseconds for n images."""

    per_call: float
    per_image: float


def reference_score() -> float:
    """Benchmark score of this machine when nothing disturbs it: the best of several.

    Fragments are timed in the same way, by the best of several runs, so that both describe one machine.
    """
    return max(measure_score() for _ in range(SCORE_ROUNDS))


def describe(model: onnx.ModelProto, micro_batch: int) -> tuple[Fragment, bytes]:
    """Measures a fragment.

    Args:
        model: One input, one output, shapes inferred.
        micro_batch: Images for which the peak memory is stated.

    Returns:
        The description and the file. Its FLOPs, weights and peak memory are derived from the graph (the peak
        is the weights and the greatest sum of tensors alive at once); its times are measured here.
    """
    graph = Graph(model)
    content = file_content(model)
    with tempfile.TemporaryDirectory() as folder:
        runtime = _load(model, Path(folder))
        timing = time_runtime(runtime)
    fragment = Fragment(
        sha256=sha256_of(content),
        file_bytes=len(content),
        weight_bytes=graph.weight_bytes,
        peak_memory_bytes=graph.weight_bytes + micro_batch * graph.peak_activation_bytes_per_image,
        flops_per_image=float(graph.flops_per_image),
        milliseconds_per_image=timing.per_image,
        milliseconds_per_call=timing.per_call,
        input=runtime.input,
        output=runtime.output,
    )
    return fragment, content


def time_runtime(runtime: FragmentRuntime, batches: Sequence[int] = BATCHES) -> Timing:
    """Fits `per_call + n * per_image` to the best time of each batch size, all with equal relative weight."""
    return fit([1000 * _best_seconds([runtime], batch)[0] for batch in batches], batches)


def fit(milliseconds: Sequence[float], batches: Sequence[int]) -> Timing:
    """The line, nowhere falling and not below zero, that fits measured calls with least relative error."""
    times = np.array(milliseconds)
    rows = np.stack([np.ones(len(batches)), np.array(batches)], axis=1)
    (per_call, per_image), *_ = np.linalg.lstsq(rows / times[:, None], np.ones(len(batches)), rcond=None)
    if per_call < 0:  # larger batches cost more an image, as they do when they leave the cache
        per_call, per_image = 0.0, np.mean(times / batches)
    if per_image < 0:  # an image costs less than the noise
        per_call, per_image = np.mean(times), 0.0
    return Timing(round(float(per_call), 4), round(float(per_image), 4))


def segment_times(models: Sequence[onnx.ModelProto], batch: int) -> tuple[float, ...]:
    """Best time of each model in milliseconds an image, all measured in turn so that a disturbance hits all.

    Args:
        models: The segments of a chain, or any fragments to compare.
        batch: Images in a call.
    """
    with tempfile.TemporaryDirectory() as folder:
        runtimes = [_load(model, Path(folder)) for model in models]
        return tuple(1000 * seconds / batch for seconds in _best_seconds(runtimes, batch))


def _load(model: onnx.ModelProto, folder: Path) -> FragmentRuntime:
    content = file_content(model)
    path = folder / f"{sha256_of(content)}.onnx"
    path.write_bytes(content)
    return FragmentRuntime(path)


def _best_seconds(runtimes: Sequence[FragmentRuntime], batch: int) -> list[float]:
    inputs = [_example(runtime.input, batch) for runtime in runtimes]
    best = [float("inf")] * len(runtimes)
    for _ in range(ROUNDS):
        for index, (runtime, array) in enumerate(zip(runtimes, inputs, strict=True)):
            started = time.perf_counter()
            runtime.run(array)
            best[index] = min(best[index], time.perf_counter() - started)
    return best


def _example(spec: TensorSpec, batch: int) -> NDArray[Any]:
    random = np.random.default_rng(0)
    shape = (batch, *spec.shape)
    if spec.dtype == "uint8":
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.standard_normal(shape).astype(spec.dtype)
