"""A node tells what it offers again when that matters to others, and not at every breath."""

from typing import Any

import pytest

from splitplace.edge_node.news import News
from splitplace.messages.cluster import FragmentTiming, LinkFigures, NodeInfo, PreparedFragment
from tests.support.messages import node_info

FIRST, SECOND = "a" * 64, "b" * 64


def timed(ms: float, fragment: str = FIRST, **more: Any) -> NodeInfo:
    timing = FragmentTiming(fragment=fragment, milliseconds_per_image=ms, **more)
    return node_info(timings=(timing,))


def due(before: NodeInfo, now: NodeInfo, after_ms: float) -> bool:
    news = News()
    assert news.is_due(before, 0.0), "nothing was told before"
    news.told(before, 0.0)
    return news.is_due(now, after_ms)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (node_info(loaded=()), node_info(loaded=(FIRST,))),
        (node_info(stored=(FIRST, SECOND)), node_info(stored=(FIRST,))),
        (node_info(timings=()), timed(3.0)),
        (timed(3.0), timed(3.0, output_ratio=0.5)),
        (timed(3.0), timed(3.0, SECOND)),
        (timed(3.0), timed(4.6)),
        (timed(3.0), timed(1.4)),
        (node_info(link=LinkFigures()), node_info(link=LinkFigures(round_trip_ms=2.0))),
    ],
)
def test_what_is_new_or_changed_by_half_is_told_at_once(before: NodeInfo, now: NodeInfo) -> None:
    assert due(before, now, 1.0)


def test_a_figure_that_changed_by_a_tenth_is_told_after_five_seconds() -> None:
    assert not due(timed(3.0), timed(3.4), 4999.0)
    assert due(timed(3.0), timed(3.4), 5000.0)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (timed(3.0), timed(3.2)),
        (timed(0.001), timed(0.004)),
        (node_info(loaded=(FIRST, SECOND)), node_info(loaded=(SECOND, FIRST))),
    ],
)
def test_what_changed_by_less_or_only_in_its_order_is_never_told(before: NodeInfo, now: NodeInfo) -> None:
    assert not due(before, now, 1e9)


def test_small_changes_add_up_against_what_was_told() -> None:
    news = News()
    news.told(timed(3.0), 0.0)
    assert [news.is_due(timed(3.0 + step / 10), 6000.0) for step in range(5)] == [False] * 4 + [True]


def test_what_is_prepared_counts_by_its_fragment_not_by_its_place() -> None:
    parts = [PreparedFragment(fragment=each, private_bytes=1, mapped_bytes=2) for each in (FIRST, SECOND)]
    assert not due(node_info(prepared=tuple(parts)), node_info(prepared=tuple(reversed(parts))), 1e9)
