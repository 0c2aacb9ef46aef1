"""A node's measurement of itself does not depend on what else the device does."""

import subprocess
import sys
from itertools import pairwise

import pytest

from splitplace.edge_node.benchmark import interleaved_s, measure_gains, quick_s
from splitplace.edge_node.gains import ONE_THREAD

EQUAL_WITHIN = 0.45
"""Virtual cores differ by a third while their host is busy. Mean rates differed by a factor of two."""
TRIES = 5
_NODE = """
import sys
from splitplace.edge_node.benchmark import measure_score
print(measure_score(), flush=True)
"""
_OTHER_WORK = "import sys\nprint(flush=True)\nwhile True: pass"


def test_equal_nodes_that_start_together_beside_other_work_agree() -> None:
    others = [subprocess.Popen([sys.executable, "-c", _OTHER_WORK], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        tries = [_scores_of_equal_nodes()]
        while not _agree(tries[-1]) and len(tries) < TRIES:
            tries.append(_scores_of_equal_nodes())
    finally:
        for other in others:
            other.kill()
            other.communicate()
    assert _agree(tries[-1]), tries


def _scores_of_equal_nodes() -> list[float]:
    nodes = [
        subprocess.Popen([sys.executable, "-c", _NODE], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    return [float(node.communicate(timeout=120)[0]) for node in nodes]


def _agree(scores: list[float]) -> bool:
    return max(scores) <= min(scores) * (1 + EQUAL_WITHIN)


def test_a_disturbance_of_most_runs_does_not_count() -> None:
    clock = [0.0]
    took_s = 0.001

    def run() -> None:
        clock[0] += took_s * (1 if int(clock[0] * 1000) % 5 == 0 else 3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("splitplace.edge_node.benchmark.time.perf_counter", lambda: clock[0])
        patch.setattr("splitplace.edge_node.benchmark.time.sleep", lambda _: None)
        assert quick_s(run, 0.5) == pytest.approx(took_s)


def test_a_slow_device_is_measured_in_bounded_time() -> None:
    clock, runs = [0.0], [0]

    def run() -> None:
        runs[0] += 1
        clock[0] += 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("splitplace.edge_node.benchmark.time.perf_counter", lambda: clock[0])
        patch.setattr("splitplace.edge_node.benchmark.time.sleep", lambda _: None)
        assert quick_s(run, 0.5) == pytest.approx(1.0)
    assert runs[0] <= 5


def test_several_things_are_measured_in_turn() -> None:
    order: list[int] = []
    interleaved_s([lambda: order.append(0), lambda: order.append(1)], 0.01)
    assert all(first != second for first, second in pairwise(order))


def test_what_threads_gain_is_measured_and_one_thread_gains_nothing() -> None:
    assert measure_gains(1) is ONE_THREAD
    gains = measure_gains(2, 0.05)
    assert gains.threads == 2
    assert 0 < gains.alone <= 2
    assert 0 < gains.together <= 2
