"""What a link still has to carry: a fluid model."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.policies.link_backlog import LinkBacklog, share_of_link

BYTE_MS = 0.5


def test_bytes_drain_as_fast_as_the_link_carries_them() -> None:
    link = LinkBacklog()
    assert link.backlog_ms(10.0) == 0.0
    link.put(100, BYTE_MS, 10.0)
    assert link.free_ms == 60.0
    link.put(20, BYTE_MS, 30.0)
    assert link.backlog_ms(30.0) == 40.0
    link.put(20, BYTE_MS, 100.0)  # it was idle in between
    assert link.free_ms == 110.0


def test_what_a_task_leaves_behind_is_gone_when_it_ends() -> None:
    link = LinkBacklog()
    link.put(100, BYTE_MS, 0.0)
    link.put(40, BYTE_MS, 0.0)
    link.drop(100, BYTE_MS, 10.0, done=True)  # sooner than the link would have carried it
    assert link.backlog_ms(10.0) == 20.0


def test_what_never_comes_takes_no_time() -> None:
    link = LinkBacklog()
    link.put(100, BYTE_MS, 0.0)
    link.put(40, BYTE_MS, 0.0)
    link.drop(40, BYTE_MS, 10.0, done=False)
    assert link.backlog_ms(10.0) == 40.0


def test_a_node_without_a_link_has_no_backlog() -> None:
    link = LinkBacklog()
    link.put(100, inf, 0.0)
    link.drop(100, inf, 1.0, done=True)
    assert link.backlog_ms(1.0) == 0.0


@given(
    events=st.lists(
        st.tuples(st.integers(0, 10**9), st.floats(1e-6, 10), st.floats(0, 1e4), st.booleans()), max_size=20
    )
)
def test_a_link_whose_tasks_have_all_ended_is_free(events: list[tuple[int, float, float, bool]]) -> None:
    link, now_ms = LinkBacklog(), 0.0
    for size, byte_ms, passed_ms, _ in events:
        now_ms += passed_ms
        link.put(size, byte_ms, now_ms)
        assert link.backlog_ms(now_ms) >= size * byte_ms - 1e-6
    for size, byte_ms, passed_ms, done in events:
        now_ms += passed_ms
        link.drop(size, byte_ms, now_ms, done=done)
    assert link.backlog_ms(now_ms) == pytest.approx(0.0, abs=1e-3)


def test_a_job_shares_a_link_equally_with_tasks_that_have_more_to_bring() -> None:
    assert share_of_link(100, 0.0, 5) == 1.0
    assert share_of_link(100, 1e9, 4) == 1 / 5
    assert share_of_link(100, 50.0, 4) == 1 / 1.5  # they have no more than that left
    assert share_of_link(0, 1e9, 4) == 1.0
