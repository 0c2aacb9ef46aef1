"""Measures this node: speed of a small reference network, with one and more threads, and of the tensor codec.

Other processes only ever add to the time of a run. So everything follows from the quickest of many short runs
with pauses between them: after a pause, the scheduler seldom interrupts. A CPU quota does not show in
them; the node multiplies by its share.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from splitplace.edge_node.gains import ONE_THREAD, Gains
from splitplace.edge_node.runtime import FragmentRuntime, load_fragment
from splitplace.messages.frames import encode_tensor

REFERENCE_FILE: Final = Path(__file__).with_name("benchmark.onnx")
"""Made by `python -m splitplace.workshop.recipes.reference_network`."""
REFERENCE_FLOPS: Final = 28_901_376
"""Floating-point operations of one run of it on one picture."""
CODEC_RUNS: Final = 4

_FEWEST_RUNS = 40
_BURST_S = 0.003
_PAUSE_S = 0.012
_PATIENCE = 5
"""A slow device stops short of `_FEWEST_RUNS` after so many times the time it was given."""
_PICTURES = 16
"""Pictures in a run that is shared among threads: enough work to be worth it, as for a real network."""
_SPINNING_PAYS = 1.1
"""Threads spin between the operators of a run if that is so many times as fast: it costs CPU time."""


def measure_score(seconds: float = 2.0) -> float:
    """Return the speed of one thread in GFLOP/s, as if nothing else ran and no quota bounded it.

    A node of score s takes `reference_score / s` times as long for a fragment as its manifest says.

    Args:
        seconds: How long to measure, unless the device is so slow that it needs longer.

    Raises:
        FragmentError: The reference network does not load or run.
    """
    runtime = load_fragment(REFERENCE_FILE)
    picture = _pictures(runtime, 1)
    return REFERENCE_FLOPS / 1e9 / quick_s(lambda: runtime.run(picture), seconds)


def measure_gains(threads: int, seconds: float = 0.6) -> Gains:
    """Return what several threads gain on this device, one run at a time and several at once.

    Args:
        threads: Threads to use.
        seconds: How long to measure, unless the device is so slow that it needs longer.

    Raises:
        FragmentError: The reference network does not load or run.
    """
    if threads == 1:
        return ONE_THREAD
    resting = load_fragment(REFERENCE_FILE, threads=threads)
    spinning = load_fragment(REFERENCE_FILE, threads=threads, spinning=True)
    pictures = _pictures(resting, _PICTURES)
    with ThreadPoolExecutor(threads) as pool:

        def at_once() -> None:
            barrier = threading.Barrier(threads)

            def run() -> None:
                barrier.wait()
                resting.run(pictures)

            for future in [pool.submit(run) for _ in range(threads)]:
                future.result()

        one_s, resting_s, spinning_s, several_s = interleaved_s(
            [
                lambda: resting.run(pictures),
                lambda: resting.run(pictures, all_cores=True),
                lambda: spinning.run(pictures, all_cores=True),
                at_once,
            ],
            seconds,
        )
    spins = resting_s > _SPINNING_PAYS * spinning_s
    return Gains(
        threads=threads,
        alone=min(threads, one_s / (spinning_s if spins else resting_s)),
        together=min(threads, threads * one_s / several_s),
        spinning=spins,
    )


def measure_codec(*, compress: bool) -> float:
    """Return the speed of the tensor codec in MB/s, on a megabyte like activations after a ReLU."""
    values = np.random.default_rng(0).standard_normal(1 << 18, dtype=np.float32).clip(min=0)
    took_s = []
    for _ in range(CODEC_RUNS):
        started_s = time.perf_counter()
        encode_tensor(values, compress=compress)
        took_s.append(time.perf_counter() - started_s)
    return values.nbytes / 1e6 / min(took_s)


def quick_s(run: Callable[[], object], seconds: float) -> float:
    """Return the time that a run takes when nothing disturbs it.

    Args:
        run: Does it once.
        seconds: How long to repeat it.
    """
    (took_s,) = interleaved_s([run], seconds)
    return took_s


def interleaved_s(runs: Sequence[Callable[[], object]], seconds: float) -> tuple[float, ...]:
    """Return the times that several runs take when nothing disturbs them, measured in turn.

    Args:
        runs: Each does something once.
        seconds: How long to repeat them.
    """
    for run in runs:
        run()
    times_s: list[list[float]] = [[] for _ in runs]
    began_s = time.perf_counter()
    while _goes_on(time.perf_counter() - began_s, len(times_s[0]), seconds):
        burst_s = time.perf_counter() + _BURST_S
        while True:
            for run, took_s in zip(runs, times_s, strict=True):
                started_s = time.perf_counter()
                run()
                took_s.append(time.perf_counter() - started_s)
            if time.perf_counter() >= burst_s:
                break
        time.sleep(_PAUSE_S)
    return tuple(max(1e-9, min(took_s)) for took_s in times_s)


def _goes_on(elapsed_s: float, rounds: int, seconds: float) -> bool:
    return elapsed_s < seconds or (rounds < _FEWEST_RUNS and elapsed_s < _PATIENCE * seconds)


def _pictures(runtime: FragmentRuntime, count: int) -> np.ndarray:
    return np.full((count, *runtime.input.shape), 0.5, np.dtype(runtime.input.dtype))
