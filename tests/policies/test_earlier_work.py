"""Work ahead of a task, against a walk over all tasks."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.policies.earlier_work import EarlierWork

dues = st.sampled_from([0.0, 1.5, 10.0, 1e6, inf])
steps = st.tuples(st.sampled_from(["put", "drop"]), st.integers(0, 9), st.floats(0, 1e4), dues)


@given(st.lists(steps, max_size=60))
def test_the_work_ahead_is_the_sum_over_the_tasks_that_are_due_before(
    course: list[tuple[str, int, float, float]],
) -> None:
    kept, work = {}, EarlierWork()
    due_of = {number: [0.0, 1.5, 10.0, 1e6, inf][number % 5] for number in range(10)}
    for action, number, work_ms, asked_ms in course:
        task = f"c.t{number}"
        if action == "put":
            kept[number] = work_ms
            work.put(task, due_of[number], work_ms)
        else:
            kept.pop(number, None)
            work.drop(task, due_of[number])
        expected = sum(ms for number, ms in kept.items() if due_of[number] <= asked_ms)
        assert work.until_ms(asked_ms) == pytest.approx(expected)
