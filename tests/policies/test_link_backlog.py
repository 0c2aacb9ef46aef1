"""What a link still has to carry: a fluid model."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.policies.link_backlog import LinkBacklog, share_of_link


def test_bytes_drain_as_fast_as_the_link_carries_them() -> None:
    link = LinkBacklog(0.5)
    assert link.backlog_ms(10.0) == 0.0
    link.put("a", 100, 10.0)
    assert link.free_ms == 60.0
    link.put("b", 20, 30.0)
    assert link.backlog_ms(30.0) == 40.0
    link.put("c", 20, 100.0)  # it was idle in between
    assert link.free_ms == 110.0


def test_what_a_task_leaves_behind_is_gone_when_it_ends() -> None:
    link = LinkBacklog(0.5)
    link.put("a", 100, 0.0)
    link.put("b", 40, 0.0)
    link.drop("a", 10.0)  # sooner than the link would have carried it
    assert link.backlog_ms(10.0) == 20.0


def test_what_has_crossed_takes_nothing_from_others_when_its_task_ends() -> None:
    link = LinkBacklog(1.0)
    link.put("a", 100, 0.0)
    link.put("b", 100, 100.0)
    link.drop("a", 110.0)
    assert link.backlog_ms(110.0) == 90.0
    link.drop("a", 120.0)
    link.drop("unknown", 120.0)
    assert link.backlog_ms(120.0) == 80.0


def test_what_a_task_brings_later_counts_with_what_it_has_left() -> None:
    link = LinkBacklog(1.0)
    link.put("a", 100, 0.0)
    link.put("b", 10, 0.0)
    link.put("a", 50, 20.0)
    assert link.backlog_ms(20.0) == 140.0
    link.drop("a", 20.0)
    assert link.backlog_ms(20.0) == 10.0


def test_a_link_that_becomes_faster_or_slower_carries_the_rest_at_its_new_speed() -> None:
    link = LinkBacklog(1.0)
    link.put("a", 100, 0.0)
    link.change(0.1, 50.0)
    assert link.backlog_ms(50.0) == pytest.approx(5.0)
    link.change(10.0, 50.0)
    assert link.backlog_ms(50.0) == pytest.approx(500.0)
    link.change(0.0, 60.0)  # nobody says any more that it can be too slow
    assert link.backlog_ms(60.0) == 0.0
    link.put("b", 100, 60.0)
    assert link.backlog_ms(60.0) == 0.0
    link.change(1.0, 70.0)
    assert link.backlog_ms(70.0) == 0.0


def test_a_node_without_a_link_never_has_what_was_placed() -> None:
    link = LinkBacklog(inf)
    assert link.backlog_ms(1.0) == 0.0
    link.put("a", 100, 1.0)
    assert link.backlog_ms(1e9) == inf
    link.drop("a", 2.0)
    assert link.backlog_ms(2.0) == 0.0


events = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.integers(0, 10**6),
        st.floats(0, 1e4),
        st.sampled_from(["put", "drop", "change"]),
        st.floats(1e-3, 10),
    ),
    max_size=30,
)


@given(events=events)
def test_a_link_keeps_busy_while_it_has_something_and_is_free_when_all_tasks_have_ended(
    events: list[tuple[str, int, float, str, float]],
) -> None:
    link, now_ms = LinkBacklog(1.0), 0.0
    for task, size, passed_ms, what, byte_ms in events:
        before_ms = link.backlog_ms(now_ms)
        now_ms += passed_ms
        left_ms = max(0.0, before_ms - passed_ms)
        assert link.backlog_ms(now_ms) == pytest.approx(left_ms, rel=1e-6, abs=1e-3)
        if what == "put":
            link.put(task, size, now_ms)
            left_ms += size * link.byte_ms
        elif what == "change":
            left_ms *= byte_ms / link.byte_ms
            link.change(byte_ms, now_ms)
        else:
            link.drop(task, now_ms)
            assert link.backlog_ms(now_ms) <= left_ms + 1e-3
            continue
        assert link.backlog_ms(now_ms) == pytest.approx(left_ms, rel=1e-6, abs=1e-3)
    for task in "abcd":
        link.drop(task, now_ms)
    assert link.backlog_ms(now_ms) == 0.0


def test_a_job_shares_a_link_equally_with_tasks_that_have_more_to_bring() -> None:
    assert share_of_link(100, 0.0, 5) == 1.0
    assert share_of_link(100, 1e9, 4) == 1 / 5
    assert share_of_link(100, 50.0, 4) == 1 / 1.5  # they have no more than that left
    assert share_of_link(0, 1e9, 4) == 1.0
