"""Measuring fragments."""

import time
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray
from typing_extensions import override

from splitplace.edge_node.runtime import FragmentRuntime, load_fragment
from splitplace.edge_node.stage.session import Tensors
from splitplace.messages.pieces import NamedTensor
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.cutting.profile import LEAST_ROUNDS, Timing, fit, time_runtimes
from splitplace.workshop.onnx.file import file_content
from tests.support.small_networks import exported_small_network


class _Worker(FragmentRuntime):
    """Computes for 4 ms a call and 1 ms an image."""

    def __init__(self) -> None:
        self.inputs = (NamedTensor(name="x", spec=TensorSpec(dtype="float32", shape=(2,))),)

    @override
    def run_bundle(self, tensors: Tensors, *, all_cores: bool = False) -> dict[str, NDArray[Any]]:
        end = time.thread_time() + 0.004 + 0.001 * len(tensors["x"])
        while time.thread_time() < end:
            pass
        return dict(tensors)


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


def test_large_networks_are_timed_less_often() -> None:
    calls: list[int] = []

    class Counting(_Worker):
        @override
        def run_bundle(self, tensors: Tensors, *, all_cores: bool = False) -> dict[str, NDArray[Any]]:
            calls.append(len(tensors["x"]))
            return super().run_bundle(tensors, all_cores=all_cores)

    time_runtimes([Counting()], batches=(1,), most_s=0.0)
    assert calls == [1] * LEAST_ROUNDS


def test_a_larger_batch_takes_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitplace.workshop.cutting.profile.ROUNDS", 5)
    path = tmp_path / "network.onnx"
    path.write_bytes(file_content(exported_small_network()))
    runtimes = [load_fragment(path)] * 2
    light, heavy = time_runtimes(runtimes, (2,)), time_runtimes(runtimes, (64,))
    assert min(64 * each.per_image + each.per_call for each in heavy) > 4 * max(
        2 * each.per_image + each.per_call for each in light
    )
