"""Placement reckons with what nodes have measured, and with what preparing takes."""

from math import inf
from typing import Any

import pytest

from splitplace.messages.application import Fragment
from splitplace.messages.cluster import NodeState, PreparedFragment
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.measured_memory import MeasuredMemory
from splitplace.policies import cost
from splitplace.policies.cluster import ClusterView
from splitplace.policies.memory import (
    activation_bytes,
    described_bytes,
    is_prepared,
    least_budget_bytes,
    least_preparing_bytes,
    needed_bytes,
    next_preparation,
    preparation,
    preparing_bytes,
)
from splitplace.policies.stage_work import StageWork
from tests.support import examples

BUDGET = 64 * MEBIBYTE
PRIVATE = 26 * MEBIBYTE
"""What is reckoned for activations of 10 MiB."""


def fragment(*, weight_mib: float, stored_mib: float | None = None, chain: bool = True) -> Fragment:
    """A fragment whose activations take 10 MiB."""
    changes = {
        "weight_bytes": int(weight_mib * MEBIBYTE),
        "file_bytes": int((weight_mib if stored_mib is None else stored_mib) * MEBIBYTE),
        "peak_memory_bytes": int((10 + weight_mib) * MEBIBYTE),
        "chain": "network" if chain else None,
        "end": 1 if chain else 0,
    }
    return examples.fragment("large").model_copy(update=changes)


def test_preparing_holds_the_weights_once_and_narrow_ones_twice() -> None:
    assert 44 * MEBIBYTE < preparing_bytes(fragment(weight_mib=44)) <= BUDGET
    assert preparing_bytes(fragment(weight_mib=44, stored_mib=22)) > 88 * MEBIBYTE


def with_largest(made: Fragment, mib: float) -> Fragment:
    return made.model_copy(update={"largest_weight_bytes": int(mib * MEBIBYTE)})


def test_weights_are_laid_out_for_the_processor_where_the_budget_holds_that() -> None:
    large = with_largest(fragment(weight_mib=100), 9)
    assert preparation(large, 200 * MEBIBYTE) == (preparing_bytes(large), True)
    needed, packed = preparation(large, BUDGET)
    assert not packed
    assert 9 * MEBIBYTE < needed <= PRIVATE
    assert needed_bytes(large, budget_bytes=BUDGET, own_bytes=None) == described_bytes(large)


def test_what_lacked_memory_gets_more_and_is_then_left_as_it_is() -> None:
    large = with_largest(fragment(weight_mib=44), 9)
    tried = [preparation(large, BUDGET)]
    while (more := next_preparation(large, tried[-1], BUDGET)) is not None:
        tried.append(more)
    assert [each.packed for each in tried] == sorted([each.packed for each in tried], reverse=True)
    for packed in (True, False):
        assert max(each.private_bytes for each in tried if each.packed == packed) == BUDGET


def test_the_largest_weight_bounds_what_a_node_can_prepare() -> None:
    large = fragment(weight_mib=100)
    assert least_preparing_bytes(with_largest(large, 60)) > BUDGET
    assert needed_bytes(with_largest(large, 60), budget_bytes=BUDGET, own_bytes=None) == inf
    assert least_preparing_bytes(large) == preparing_bytes(large), "of old stores it is not known"
    narrow = fragment(weight_mib=100, stored_mib=50)
    assert least_preparing_bytes(with_largest(narrow, 9)) == preparing_bytes(narrow), "it is widened"


def test_small_weights_are_not_prepared_and_are_held() -> None:
    small = fragment(weight_mib=0.5)
    assert not is_prepared(small)
    assert preparing_bytes(small) == 0
    assert described_bytes(small) == small.peak_memory_bytes
    assert activation_bytes(small) == 10 * MEBIBYTE


def test_mapped_weights_take_no_private_memory_and_runs_more_than_their_tensors() -> None:
    assert described_bytes(fragment(weight_mib=44)) == described_bytes(fragment(weight_mib=20)) == PRIVATE
    assert 20 * MEBIBYTE < activation_bytes(fragment(weight_mib=44)) < PRIVATE


def test_a_fragment_in_one_file_takes_what_its_manifest_says() -> None:
    old = fragment(weight_mib=100, chain=False)
    assert needed_bytes(old, budget_bytes=BUDGET, own_bytes=None) == old.peak_memory_bytes


@pytest.mark.parametrize(
    ("weight_mib", "own_mib", "expected_mib"), [(44, None, 26), (44, 12, 12), (60, None, inf), (60, 12, 12)]
)
def test_a_node_that_has_measured_a_fragment_knows_and_one_too_small_to_prepare_it_is_never_asked(
    weight_mib: float, own_mib: int | None, expected_mib: float
) -> None:
    own_bytes = None if own_mib is None else own_mib * MEBIBYTE
    needed = needed_bytes(fragment(weight_mib=weight_mib), budget_bytes=BUDGET, own_bytes=own_bytes)
    assert needed == expected_mib * MEBIBYTE


def with_memory(
    made: Fragment, *, preparing: float = 0, loading: float = 1, loaded: float = 1, running: float = 14
) -> Fragment:
    figures = {
        "preparing_bytes": preparing,
        "loading_bytes": loading,
        "loaded_bytes": loaded,
        "running_bytes": running,
    }
    memory = MeasuredMemory(**{name: int(mib * MEBIBYTE) for name, mib in figures.items()})
    return made.model_copy(update={"memory": memory})


def test_what_was_measured_when_the_network_was_added_counts_instead_of_what_follows_from_its_tensors() -> (
    None
):
    large = with_memory(fragment(weight_mib=44), preparing=90)
    assert 14 * MEBIBYTE < described_bytes(large) < 16 * MEBIBYTE
    assert 90 * MEBIBYTE < preparing_bytes(large) < 100 * MEBIBYTE
    assert 13 * MEBIBYTE < activation_bytes(large) < 15 * MEBIBYTE
    assert needed_bytes(large, budget_bytes=BUDGET, own_bytes=None) == inf, "it is too small to prepare it"
    assert least_budget_bytes(large) == preparing_bytes(large)


def test_the_peak_while_loading_counts_where_it_is_greater_than_that_of_a_run() -> None:
    assert described_bytes(with_memory(fragment(weight_mib=4), loading=30)) > 30 * MEBIBYTE


def test_a_figure_of_a_fragment_that_was_loaded_otherwise_does_not_count() -> None:
    for made in (fragment(weight_mib=44), with_memory(fragment(weight_mib=4), preparing=9)):
        joined = with_memory(made) if made.memory is None else made
        bare = made.model_copy(update={"memory": None})
        assert described_bytes(joined) == described_bytes(bare)
        assert preparing_bytes(joined) == preparing_bytes(bare)


def node(name: str, *, budget_bytes: int = BUDGET, load_ms: float | None = None, **told: Any) -> NodeState:
    changes = {"memory_budget_bytes": budget_bytes, **told}
    return examples.node(name, load_ms=load_ms).model_copy(update=changes)


def view(large: Fragment) -> ClusterView:
    """One node that has prepared a fragment, one that has not, one that has and never loaded any."""
    form = PreparedFragment(fragment=large.sha256, private_bytes=20 * MEBIBYTE, mapped_bytes=60 * MEBIBYTE)
    return examples.cluster(
        node("a", prepared=(form,), map_ms=30.0, load_ms=4000.0),
        node("b", load_ms=4000.0),
        node("c", budget_bytes=2 * BUDGET, prepared=(form,)),
    )


def test_the_view_and_its_columns_know_what_each_node_needs_and_how_soon_it_can_run() -> None:
    large = fragment(weight_mib=60)
    cluster = view(large)
    assert [cluster.needed_bytes(name, large) for name in "abc"] == [20 * MEBIBYTE, inf, 20 * MEBIBYTE]
    assert cluster.columns.needed_bytes(large).tolist() == [20 * MEBIBYTE, inf, 20 * MEBIBYTE]
    expected = [30.0, 4000.0 + cost.transfer_ms(large.file_bytes, 100.0), cost.MAP_MS]
    assert [cluster.fragment_ready_ms(name, large, 0.0) for name in "abc"] == expected
    assert cluster.columns.fragment_ready_ms(large, 0.0).tolist() == expected


def test_what_is_reserved_is_given_back_though_the_node_has_measured_it_since() -> None:
    large = fragment(weight_mib=44)
    cluster = view(fragment(weight_mib=44).model_copy(update={"sha256": "e" * 64}))
    cluster.placed("t", 1, [StageWork("b", large, 10.0)], 0.0)
    assert cluster.free_bytes("b") == BUDGET - PRIVATE
    form = PreparedFragment(fragment=large.sha256, private_bytes=25 * MEBIBYTE, mapped_bytes=1)
    cluster.apply(examples.snapshot(node("b", prepared=(form,))), 1.0)
    assert cluster.columns.needed_bytes(large).tolist() == [25 * MEBIBYTE]
    assert cluster.free_bytes("b") == BUDGET - PRIVATE
    cluster.finished("t", 2.0)
    assert cluster.free_bytes("b") == BUDGET
