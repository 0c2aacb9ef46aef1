from math import inf

import pytest

from splitplace.simulator.events import EventQueue


def test_events_happen_by_time_and_those_of_one_moment_in_the_order_of_planning() -> None:
    events, happened = EventQueue(), []
    for name, time_ms in (("late", 20.0), ("first", 10.0), ("second", 10.0)):
        events.at(time_ms, lambda name=name: happened.append((name, events.now_ms)))  # type: ignore[misc]
    while events.next_ms < inf:
        events.step()
    assert happened == [("first", 10.0), ("second", 10.0), ("late", 20.0)]


def test_a_cancelled_event_does_not_happen() -> None:
    events, happened = EventQueue(), []
    events.at(10.0, lambda: happened.append("cancelled")).cancel()
    events.after(20.0, lambda: happened.append("stays"))
    assert events.next_ms == 20.0
    events.step()
    events.step()
    assert happened == ["stays"]
    assert events.now_ms == 20.0


def test_nothing_is_planned_for_the_past() -> None:
    events = EventQueue(now_ms=50.0)
    assert events.at(10.0, lambda: None).time_ms == 50.0


def test_time_does_not_pass_over_an_event() -> None:
    events = EventQueue()
    events.at(10.0, lambda: None)
    events.pass_to(10.0)
    with pytest.raises(ValueError, match=r"an event at 10\.0 ms comes before 11\.0 ms"):
        events.pass_to(11.0)
