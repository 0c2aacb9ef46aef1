"""The order in which tasks of several sensors have their turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.services.gateway.line import Line, Waiting


def waiting(name: str, *, cost: float = 1.0) -> Waiting:
    """A task `<sensor>.<number>`."""
    return Waiting(key=name, sensor=name.partition(".")[0], cost=cost, due_ms=1e9)


def taken(line: Line, count: int) -> list[str]:
    tasks = [line.take() for _ in range(count)]
    return [task.key for task in tasks if task is not None]


def test_tasks_of_one_sensor_keep_their_order() -> None:
    line = Line()
    for number in range(5):
        line.add(waiting(f"a.{number}"))
    assert taken(line, 5) == [f"a.{number}" for number in range(5)]


def test_a_newcomer_waits_for_one_task_of_a_flood_at_most() -> None:
    line = Line()
    for number in range(1000):
        line.add(waiting(f"flood.{number}"))
    taken(line, 100)
    line.add(waiting("camera.0"))
    assert line.cost_ahead("door", 1.0) <= 2.0
    assert "camera.0" in taken(line, 2)


def test_a_sensor_with_large_tasks_has_fewer_turns() -> None:
    line = Line()
    for number in range(100):
        line.add(waiting(f"large.{number}", cost=4.0))
        line.add(waiting(f"small.{number}"))
    turns = taken(line, 50)
    assert sum(key.startswith("small") for key in turns) == pytest.approx(40, abs=1)


def test_a_removed_task_has_no_turn_and_its_sensor_no_debt() -> None:
    line = Line()
    for number in range(100):
        line.add(waiting(f"a.{number}"))
    removed = line.remove({f"a.{number}" for number in range(100)})
    assert [task.key for task in removed] == [f"a.{number}" for number in range(100)]
    line.add(waiting("b.0"))
    line.add(waiting("a.100"))
    assert line.cost_ahead("c", 1.0) == 2.0
    assert sorted(taken(line, 2)) == ["a.100", "b.0"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.5, 9.0)), max_size=40))
def test_what_is_said_to_be_ahead_is_what_is_taken_before(arrivals: list[tuple[str, float]]) -> None:
    line = Line()
    for number, (sensor, cost) in enumerate(arrivals):
        line.add(waiting(f"{sensor}.{number}", cost=cost))
    ahead = line.cost_ahead("b", 2.0)
    line.add(waiting("b.last", cost=2.0))
    before = 0.0
    while (task := line.take()) is not None and task.key != "b.last":
        before += task.cost
    assert before == pytest.approx(ahead)


def test_a_task_that_is_not_ready_keeps_its_place_and_lets_others_pass() -> None:
    line = Line()
    for name in ("a.0", "b.0", "a.1"):
        line.add(waiting(name))
    passing = line.take({"b.0", "a.1"})
    assert passing is not None
    assert passing.key == "b.0"
    assert line.take({"c.0"}) is None
    assert taken(line, 2) == ["a.0", "a.1"]


def test_the_tasks_of_some_sensors_can_be_left_out() -> None:
    line = Line()
    for name in ("a.0", "a.1", "b.0"):
        line.add(waiting(name))
    other = line.take(besides={"a"})
    assert other is not None
    assert other.key == "b.0"
    assert line.take(besides={"a"}) is None
    assert line.sensors == {"a"}
