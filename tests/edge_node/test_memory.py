"""The memory budget: never exceeded, busy fragments stay, the least recently used go first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.edge_node.memory import DoesNotFitError, MemoryBudget


def test_the_least_recently_used_fragment_makes_room() -> None:
    budget = MemoryBudget(100)
    budget.reserve("a", 40, ())
    budget.reserve("b", 40, ())
    budget.use("a")
    assert budget.reserve("c", 40, ()) == ("b",)
    assert budget.reserved == ("a", "c")


def test_only_as_many_are_evicted_as_necessary() -> None:
    budget = MemoryBudget(100)
    for name in "abcd":
        budget.reserve(name, 25, ())
    assert budget.reserve("e", 30, ()) == ("a", "b")


def test_a_busy_fragment_is_passed_over() -> None:
    budget = MemoryBudget(100)
    budget.reserve("busy", 50, ())
    budget.reserve("idle", 50, ())
    assert budget.reserve("new", 50, {"busy"}) == ("idle",)


def test_when_everything_is_busy_nothing_changes() -> None:
    budget = MemoryBudget(100)
    budget.reserve("busy", 60, ())
    budget.reserve("idle", 30, ())
    assert budget.reserve("new", 50, {"busy"}) is None
    assert budget.reserved == ("busy", "idle")


def test_what_exceeds_the_whole_budget_is_refused_with_both_figures() -> None:
    budget = MemoryBudget(100)
    with pytest.raises(DoesNotFitError, match="needs 101 bytes of memory, the budget is 100"):
        budget.reserve("big", 101, ())


def test_a_released_reservation_is_free_again() -> None:
    budget = MemoryBudget(100)
    budget.reserve("a", 100, ())
    budget.release("a")
    budget.release("never there")
    assert budget.reserve("b", 100, {"a"}) == ()


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 120), st.sets(st.sampled_from("abcdefgh")))
    )
)
def test_the_budget_is_never_exceeded_and_nothing_busy_is_evicted(
    steps: list[tuple[str, int, set[str]]],
) -> None:
    budget = MemoryBudget(100)
    for fragment, size, busy in steps:
        if fragment in budget.reserved:
            budget.use(fragment)
            continue
        before = set(budget.reserved)
        try:
            evicted = budget.reserve(fragment, size, busy)
        except DoesNotFitError:
            assert size > 100
            continue
        assert budget.reserved_bytes <= 100
        if evicted is None:
            assert set(budget.reserved) == before
        else:
            assert not busy & set(evicted)
            assert set(budget.reserved) == before - set(evicted) | {fragment}
