"""What a stage takes: as measured for a size of micro-batch, or foreseen from its weights."""

import pytest

from splitplace.edge_node.stage.memory import RunMemory, StageMemory, form_bytes
from splitplace.messages.limits import MEBIBYTE

MEMORY = StageMemory(
    loading_bytes=5 * MEBIBYTE,
    loaded_bytes=2 * MEBIBYTE,
    runs=(
        RunMemory(micro_batch=1, private_bytes=4 * MEBIBYTE, milliseconds=1.0),
        RunMemory(micro_batch=4, private_bytes=40 * MEBIBYTE, milliseconds=3.0),
    ),
)


@pytest.mark.parametrize(("micro_batch", "measured"), [(1, 5), (2, 40), (3, 40), (4, 40), (8, 80)], ids=str)
def test_the_next_larger_size_that_was_measured_counts_and_at_least_the_peak_of_loading(
    micro_batch: int, measured: int
) -> None:
    reserved = MEMORY.private_bytes(micro_batch)
    assert measured * MEBIBYTE < reserved <= 1.05 * measured * MEBIBYTE + MEBIBYTE


def test_sizes_up_to_the_largest_measured_are_covered() -> None:
    assert MEMORY.covers([1, 3, 4])
    assert MEMORY.covers([])
    assert not MEMORY.covers([1, 5])


def test_a_form_is_expected_to_be_a_little_larger_than_its_weights() -> None:
    weights = 44 * MEBIBYTE
    assert weights < form_bytes(weights) < 1.2 * weights
