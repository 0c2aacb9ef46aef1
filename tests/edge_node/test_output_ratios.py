"""What compression saves is measured by fragment."""

import pytest

from splitplace.edge_node.output_ratios import OutputRatios
from splitplace.messages.cluster import MAX_FRAGMENTS_LISTED, FragmentTiming

FRAGMENT, OTHER = "a" * 64, "b" * 64


def test_the_ratio_is_that_of_the_bytes_and_follows_the_newest_outputs() -> None:
    ratios = OutputRatios()
    assert ratios.ratio(FRAGMENT) is None
    ratios.add(FRAGMENT, 250, 1000)
    assert ratios.ratio(FRAGMENT) == pytest.approx(0.25)
    for _ in range(60):
        ratios.add(FRAGMENT, 750, 1000)
    assert ratios.ratio(FRAGMENT) == pytest.approx(0.75, abs=0.01)


def test_reports_of_fragments_get_their_ratios() -> None:
    ratios = OutputRatios()
    ratios.add(FRAGMENT, 500, 1000)
    timings = tuple(FragmentTiming(fragment=each, milliseconds_per_image=1.0) for each in (FRAGMENT, OTHER))
    assert [timing.output_ratio for timing in ratios.added_to(timings)] == [0.5, None]


def test_only_the_most_recent_fragments_are_remembered() -> None:
    ratios = OutputRatios()
    for number in range(MAX_FRAGMENTS_LISTED + 1):
        ratios.add(f"{number:064x}", 1, 2)
    assert ratios.ratio(f"{0:064x}") is None
    assert ratios.ratio(f"{1:064x}") == 0.5
