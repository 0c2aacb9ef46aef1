"""The price of work: what others lose by it."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.policies.splitting.congestion import Congestion
from splitplace.policies.state import StateError


def seen(*tasks: tuple[float, float, float]) -> Congestion:
    """After tasks, each given as load, work and what it lost."""
    made = Congestion()
    for load_ms, work_ms, lost in tasks:
        made.observe(load_ms, work_ms, lost)
    return made


def test_the_price_is_that_of_a_hand_computed_example() -> None:
    """One task: load 10 ms, work 40 ms, .2 lost. At 20 ms the knock-on is 1 + 2 * 20 * 40 / 40**2."""
    assert seen((10.0, 40.0, 0.2)).price(20.0) == pytest.approx(2 * 0.2 / 40 * 2 * (1 + 1))


def test_work_is_free_before_anything_was_seen_and_on_an_idle_system() -> None:
    assert Congestion().price(1000.0) == 0
    assert seen((0.0, 40.0, 0.2)).price(1000.0) == 0
    assert seen((10.0, 0.0, 0.2)).price(1000.0) == 0
    assert seen((10.0, 40.0, 0.2)).price(0.0) == 0


def test_work_is_free_where_nobody_loses_anything() -> None:
    assert seen((10.0, 40.0, 0.0)).price(20.0) == 0


def test_old_tasks_are_forgotten() -> None:
    made = seen(*[(10.0, 40.0, 0.9)] * 50)
    high = made.price(10.0)
    for _ in range(200):
        made.observe(10.0, 40.0, 0.0)
    assert made.price(10.0) < 0.05 * high


def test_the_knock_on_is_that_of_a_queue_with_poisson_arrivals() -> None:
    """1 / (1 - rho), seen from the load alone: one node in the order of arrival, tasks of 10 ms, rho = .8.

    At the mean load the price is `2 * lost / work` times the knock-on.
    """
    random, made = Random(1), Congestion()
    load_ms, loads_ms = 0.0, []
    for _ in range(40_000):
        load_ms = max(0.0, load_ms - random.expovariate(0.8 / 10.0))
        loads_ms.append(load_ms)
        load_ms += 10.0
    mean_ms = sum(loads_ms) / len(loads_ms)
    made.observe(mean_ms, 10.0, 0.1)
    assert made.price(mean_ms) / (2 * 0.1 / 10.0) == pytest.approx(1 / (1 - 0.8), rel=0.1)


def test_next_to_no_load_or_work_is_none() -> None:
    assert seen((1e-200, 40.0, 0.2)).price(1000.0) == 0
    assert seen((10.0, 1e-200, 0.2)).price(1000.0) == 0


@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1)), max_size=20),
    st.floats(0, 1e9),
    st.floats(1, 10),
)
def test_the_price_is_never_negative_and_grows_with_the_load(
    story: list[tuple[float, float, float]], load_ms: float, factor: float
) -> None:
    made = seen(*story)
    assert 0 <= made.price(load_ms) <= made.price(factor * load_ms) * (1 + 1e-9)


def test_what_was_seen_survives_json_and_what_is_broken_is_refused() -> None:
    made, again = seen((10.0, 40.0, 0.2), (20.0, 30.0, 0.0)), Congestion()
    again.restore(json.loads(json.dumps(made.state())))
    assert again.price(7.0) == made.price(7.0)
    with pytest.raises(StateError, match="work_ms"):
        again.restore({**made.state(), "work_ms": -1.0})
