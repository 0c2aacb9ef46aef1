"""What other runs of pieces take, foreseen from those that were measured."""

import pytest

from splitplace.messages.limits import MEBIBYTE, PREPARED_FROM_BYTES
from splitplace.messages.measured_memory import MeasuredMemory, MeasuredRun, foreseen_memory

LARGE = 2 * PREPARED_FROM_BYTES
SMALL = PREPARED_FROM_BYTES // 4
TENSORS = 3 * MEBIBYTE


def run(weights: int, *, preparing: float = 0.0, beside: int = MEBIBYTE, running: float = 2.0) -> MeasuredRun:
    """A run that takes `running` times its live tensors, and `preparing` times its weights to prepare."""
    loaded = beside + (0 if preparing else weights)
    memory = MeasuredMemory(
        preparing_bytes=int(preparing * weights),
        loading_bytes=loaded,
        loaded_bytes=loaded,
        running_bytes=loaded + int(running * TENSORS),
    )
    return MeasuredRun(weights, TENSORS, memory)


def test_a_run_like_a_measured_one_takes_as_much() -> None:
    for known in (run(LARGE, preparing=2.4), run(SMALL)):
        assert foreseen_memory([known], known.weight_bytes, TENSORS) == known.memory


def test_the_greatest_of_those_that_were_measured_counts() -> None:
    known = [run(LARGE, preparing=1.2, running=2.0), run(2 * LARGE, preparing=2.4, running=1.0)]
    found = foreseen_memory(known, 3 * LARGE, 2 * TENSORS)
    assert found is not None
    assert found.preparing_bytes == pytest.approx(2.4 * 3 * LARGE, abs=2)
    assert found.running_bytes == pytest.approx(found.loaded_bytes + 2.0 * 2 * TENSORS, abs=2)


def test_small_weights_are_held_also_where_only_mapped_ones_were_measured() -> None:
    found = foreseen_memory([run(LARGE, preparing=2.4)], SMALL, TENSORS)
    assert found is not None
    assert found.preparing_bytes == 0
    assert found.loaded_bytes == SMALL + MEBIBYTE
    assert found.loading_bytes == found.loaded_bytes + SMALL


def test_nothing_is_foreseen_from_nothing_nor_a_preparation_from_what_was_never_prepared() -> None:
    assert foreseen_memory([], SMALL, TENSORS) is None
    assert foreseen_memory([run(SMALL)], LARGE, TENSORS) is None
