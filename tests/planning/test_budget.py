"""The fewest nodes of one memory budget that hold a network together."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.groupings import grouped
from splitplace.messages.limits import MEBIBYTE
from splitplace.planning.budget import BudgetError, fewest_stages
from splitplace.policies.memory import least_budget_bytes
from tests.support.examples import three_ways
from tests.support.free_stages import free_application

PIECES = 6


@given(st.floats(0.5, 60), st.floats(0.5, 400))
def test_there_are_as_few_stages_as_there_can_be(weight_megabytes: float, budget_mib: float) -> None:
    app = free_application(PIECES, weight_megabytes=weight_megabytes)
    budget = budget_mib * MEBIBYTE
    fitting = [
        cuts
        for count in range(PIECES)
        for cuts in combinations(range(1, PIECES), count)
        if all(
            least_budget_bytes(fragment) <= budget
            for fragment in grouped(app, app.variant("layer"), cuts).fragments.values()
        )
    ]
    if not fitting:
        with pytest.raises(BudgetError, match=r"needs? .* MiB, a node has"):
            fewest_stages(app, budget)
        return
    found = fewest_stages(app, budget)
    assert len(found) == 1 + min(map(len, fitting))
    assert (found[0].first, found[-1].last) == (0, PIECES - 1)
    assert all(after.first == before.last + 1 for before, after in pairwise(found))
    fragments = grouped(app, app.variant("layer"), [stage.first for stage in found[1:]]).fragments.values()
    assert [stage.bytes for stage in found] == [least_budget_bytes(fragment) for fragment in fragments]


def test_more_stages_than_a_placement_may_make_are_refused() -> None:
    app = free_application(PIECES, weight_megabytes=10, most_stages=2)
    one = fewest_stages(app, 200 * MEBIBYTE)
    assert len(one) == 1
    with pytest.raises(BudgetError, match="6 stages of 12 MiB would be needed, 2 are allowed"):
        fewest_stages(app, 12 * MEBIBYTE)


def test_a_network_whose_stages_are_fixed_is_held_whole_or_not_at_all() -> None:
    app = three_ways()
    assert len(fewest_stages(app, 1024 * MEBIBYTE)) == 1
    with pytest.raises(BudgetError, match="it cannot be cut"):
        fewest_stages(app, 1)
