import pytest

from splitplace.policies.placement.demand import MAX_GROUPS, Forecast

HALF_LIFE_MS = 10_000.0


def forecast(*, every_ms: float = 500.0, count: int = 200, application: str = "toy") -> Forecast:
    """Tasks of 6 inputs with a second of slack, at equal distances from 0 on."""
    made = Forecast(HALF_LIFE_MS)
    for number in range(count):
        made.arrived(application, "whole", 6, 1000.0, number * every_ms)
    return made


def test_nothing_is_expected_before_the_first_task() -> None:
    assert Forecast(HALF_LIFE_MS).demands(1e6) == ()


@pytest.mark.parametrize("count", [10, 40, 400])
def test_a_steady_stream_is_expected_to_go_on_from_the_beginning(count: int) -> None:
    (demand,) = forecast(count=count).demands(count * 500.0)
    assert demand.per_second == pytest.approx(2.0, rel=0.1)
    assert demand.batch == pytest.approx(6)
    assert demand.slack_ms == pytest.approx(1000)
    assert demand.shares == {"whole": pytest.approx(1.0)}


def test_what_came_counts_half_after_a_half_life_and_is_forgotten_after_many() -> None:
    made = forecast()
    (now,) = made.demands(100_000.0)
    (later,) = made.demands(100_000.0 + HALF_LIFE_MS)
    assert later.per_second == pytest.approx(now.per_second / 2, rel=0.01)
    assert made.demands(100_000.0 + 30 * HALF_LIFE_MS) == ()


def test_the_first_task_alone_tells_no_rate_of_a_thousand_in_a_second() -> None:
    made = Forecast(HALF_LIFE_MS)
    made.arrived("toy", "whole", 1, 1000.0, 5.0)
    (demand,) = made.demands(6.0)
    assert demand.per_second < 1


def test_tight_and_loose_tasks_are_groups_of_their_own_and_refused_ones_count() -> None:
    made = Forecast(HALF_LIFE_MS)
    for _ in range(3):
        made.arrived("toy", "semantic", 1, 100.0, 0.0)
        made.arrived("toy", None, 9, 2500.0, 0.0)
    made.arrived("toy", "whole", 1, 3500.0, 0.0)
    tight, loose = made.demands(0.0)
    assert tight.shares == {"semantic": 1.0}
    assert tight.slack_ms == 100
    assert loose.shares == {"whole": 0.25}
    assert loose.batch == 7
    assert loose.slack_ms == 2750
    assert loose.per_second == pytest.approx(4 / 3 * tight.per_second)


def test_of_too_many_groups_the_smallest_is_forgotten() -> None:
    made = forecast(count=3)
    for number in range(MAX_GROUPS):
        made.arrived(f"other-{number}", None, 1, 1000.0, 2000.0)
    found = made.demands(2000.0)
    assert len(found) == MAX_GROUPS
    assert "toy" in {demand.application for demand in found}
