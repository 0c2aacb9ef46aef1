"""Measuring fragments."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import override

from splitplace.edge_node.runtime import FragmentRuntime, load_fragment
from splitplace.messages.application import TensorSpec
from splitplace.storage.model_store import sha256_of
from splitplace.workshop.cutting.profile import Timing, describe, fit, segment_times, time_runtimes
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.onnx.graph import Graph
from tests.support.small_networks import exported_small_network


class _Worker(FragmentRuntime):
    """Computes for 4 ms a call and 1 ms an image."""

    def __init__(self) -> None:
        self.input = TensorSpec(dtype="float32", shape=(2,))

    @override
    def run(self, array: NDArray[Any], *, all_cores: bool = False) -> NDArray[Any]:
        end = time.thread_time() + 0.004 + 0.001 * len(array)
        while time.thread_time() < end:
            pass
        return array


def test_it_finds_what_a_call_and_what_an_image_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitplace.workshop.cutting.profile.ROUNDS", 3)
    (timing,) = time_runtimes([_Worker()], batches=(1, 4, 16))
    assert timing.per_call == pytest.approx(4, abs=0.5)
    assert timing.per_image == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        ([3.0, 4.0, 6.0], Timing(2.0, 1.0)),
        ([1.0, 4.0, 16.0], Timing(0.0, 2.3333)),
        ([3.0, 2.0, 1.0], Timing(2.0, 0.0)),
    ],
    ids=["a line", "worse in large batches", "only noise"],
)
def test_a_fit_has_no_negative_cost(milliseconds: list[float], expected: Timing) -> None:
    assert fit(milliseconds, (1, 2, 4)) == pytest.approx(expected, abs=1e-3)


def test_a_description_fits_the_file_it_comes_with(tmp_path: Path) -> None:
    model = exported_small_network()
    content = file_content(model)
    (fragment,) = describe([model], micro_batch=4)
    assert (fragment.sha256, fragment.file_bytes) == (sha256_of(content), len(content))
    path = tmp_path / "fragment.onnx"
    path.write_bytes(content)
    runtime = load_fragment(path)
    assert (fragment.input, fragment.output) == (runtime.input, runtime.output)
    graph = Graph(model)
    assert fragment.weight_bytes == graph.weight_bytes < fragment.file_bytes
    assert fragment.peak_memory_bytes == graph.weight_bytes + 4 * graph.peak_activation_bytes_per_image
    assert fragment.flops_per_image > 0
    assert fragment.milliseconds_per_image > 0
    calls = [runtime.run(np.zeros((8, 1, 28, 28), np.uint8)) for _ in range(3)]
    assert all(np.array_equal(calls[0], call) for call in calls)


def test_a_heavier_network_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitplace.workshop.cutting.profile.ROUNDS", 5)
    model = exported_small_network()
    light, heavy = segment_times([model, model], 2), segment_times([model, model], 64)
    assert 64 * min(heavy) > 4 * 2 * max(light)
