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


def test_what_a_preparation_takes_counts_until_it_is_given_back_and_is_no_fragment() -> None:
    budget = MemoryBudget(100)
    budget.reserve("a", 30, ())
    budget.reserve("b", 30, ())
    assert budget.reserve_preparing(60, {"b"}) == ("a",)
    assert (budget.reserved, budget.reserved_bytes) == (("b",), 90)
    assert budget.reserve("c", 20, {"b"}) is None
    budget.release_preparing()
    assert budget.reserve("c", 20, {"b"}) == ()
    assert budget.reserve_preparing(60, {"b", "c"}) is None
    with pytest.raises(DoesNotFitError):
        budget.reserve_preparing(101, ())


def test_mapped_weights_do_not_count_against_the_budget_and_are_told() -> None:
    budget = MemoryBudget(100)
    assert budget.reserve("a", 10, (), mapped_bytes=5000) == ()
    assert (budget.reserved_bytes, budget.mapped_bytes) == (10, 5000)
    budget.release("a")
    assert budget.mapped_bytes == 0


def test_idle_fragments_make_room_for_mapped_weights_and_the_bound_may_be_exceeded() -> None:
    budget = MemoryBudget(100, all_bytes=500)
    for name in "abc":
        budget.reserve(name, 10, (), mapped_bytes=150)
    assert not budget.fits_beside(10, 100)
    assert budget.reserve("d", 10, (), mapped_bytes=150) == ("a",)
    assert budget.reserve("e", 10, {"b", "c", "d"}, mapped_bytes=150) == ()
    assert budget.mapped_bytes + budget.reserved_bytes > 500


def test_what_is_loaded_for_later_must_fit_beside_all_that_is_there() -> None:
    budget = MemoryBudget(100, all_bytes=500)
    budget.reserve("a", 60, (), mapped_bytes=200)
    assert budget.fits_beside(40, 200)
    assert not budget.fits_beside(41)
    assert not budget.fits_beside(10, 231)


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


def test_free_memory_is_lent_and_taken_back() -> None:
    budget = MemoryBudget(100)
    budget.reserve("a", 60, ())
    assert not budget.lend(41)
    assert budget.lend(30)
    assert not budget.lend(11)
    budget.repay(30)
    assert budget.lend(40)


def test_a_fragment_that_needs_what_is_lent_waits_and_nothing_more_is_lent_until_it_has_it() -> None:
    budget = MemoryBudget(100)
    budget.reserve("a", 40, ())
    assert budget.lend(20)
    assert budget.lend(20)
    assert budget.reserve("b", 50, ()) is None, "no fragment goes for what is back in a moment"
    assert budget.reserved == ("a",)
    budget.repay(20)
    assert not budget.lend(20)
    assert budget.reserve("b", 40, ()) == ()
    assert budget.lend(0)


def test_a_fragment_that_gives_up_waiting_lets_others_borrow() -> None:
    budget = MemoryBudget(100)
    assert budget.lend(60)
    assert budget.reserve("b", 50, ()) is None
    budget.repay(60)
    assert not budget.lend(60)
    budget.release("b")
    assert budget.lend(60)


def test_what_is_lent_is_not_reserved_at_the_same_time() -> None:
    budget = MemoryBudget(100)
    budget.reserve("idle", 50, ())
    assert budget.lend(50)
    assert budget.reserve("new", 60, ()) is None
    budget.repay(50)
    assert budget.reserve("new", 60, ()) == ("idle",)
