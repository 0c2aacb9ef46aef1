"""The queue of micro-batches: order, bounds, and what is dropped."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from splitplace.edge_node.queue import JobQueue, MicroBatchJob, PushOutcome
from tests.edge_node.jobs import FRAGMENTS, make_job

READY = frozenset(FRAGMENTS)

jobs = st.builds(
    make_job,
    task=st.sampled_from(["c.a", "c.b", "c.c"]),
    attempt=st.integers(1, 3),
    micro_batch=st.integers(0, 3),
    fragment=st.sampled_from(FRAGMENTS),
    ends_ms=st.integers(1, 200).map(float),
    expected_ms=st.integers(0, 10).map(float),
)


def drain(queue: JobQueue, now_ms: float = 0.0, ready: frozenset[str] = READY) -> list[MicroBatchJob]:
    popped = []
    while (job := queue.pop(now_ms, ready)) is not None:
        popped.append(job)
    return popped


def test_the_earliest_deadline_runs_first() -> None:
    queue = JobQueue()
    for task, ends_ms in [("c.late", 300.0), ("c.early", 100.0), ("c.middle", 200.0)]:
        assert queue.push(make_job(task=task, ends_ms=ends_ms), 0.0) is PushOutcome.ACCEPTED
    assert [job.header.task for job in drain(queue)] == ["c.early", "c.middle", "c.late"]


def test_micro_batches_of_a_stage_keep_their_order_whatever_order_they_came_in() -> None:
    queue = JobQueue()
    for micro_batch, ends_ms in [(2, 100.0), (0, 101.0), (3, 99.0), (1, 102.0)]:
        queue.push(make_job(micro_batch=micro_batch, ends_ms=ends_ms), 0.0)
    assert [job.header.micro_batch for job in drain(queue)] == [0, 1, 2, 3]


def test_two_tasks_of_the_same_deadline_run_one_after_the_other() -> None:
    queue = JobQueue()
    for micro_batch in range(3):
        for task in ("c.a", "c.b"):
            queue.push(make_job(task=task, micro_batch=micro_batch), 0.0)
    assert [job.header.task for job in drain(queue)] == ["c.a"] * 3 + ["c.b"] * 3


def test_a_job_waits_for_its_fragment_and_holds_up_no_other() -> None:
    queue = JobQueue()
    queue.push(make_job(task="c.waits", fragment=FRAGMENTS[0], ends_ms=10.0), 0.0)
    queue.push(make_job(task="c.runs", fragment=FRAGMENTS[1], ends_ms=20.0), 0.0)
    first = queue.pop(0.0, {FRAGMENTS[1]})
    assert first is not None
    assert first.header.task == "c.runs"
    assert queue.pop(0.0, {FRAGMENTS[1]}) is None
    assert queue.fragments == {FRAGMENTS[0]}
    assert [job.header.task for job in drain(queue)] == ["c.waits"]


def test_a_duplicate_of_what_waits_changes_nothing() -> None:
    queue = JobQueue()
    assert queue.push(make_job(), 0.0) is PushOutcome.ACCEPTED
    assert queue.push(make_job(), 0.0) is PushOutcome.DUPLICATE
    assert (len(queue), queue.waiting_bytes, queue.dropped) == (1, 16, 0)


def test_a_job_that_comes_again_after_it_ran_does_not_go_before_the_others_of_its_stage() -> None:
    queue = JobQueue()
    queue.push(make_job(micro_batch=1, ends_ms=5.0), 0.0)
    assert queue.pop(0.0, READY) is not None
    for micro_batch in (0, 1):
        queue.push(make_job(micro_batch=micro_batch, ends_ms=9.0), 0.0)
    assert [job.header.micro_batch for job in drain(queue)] == [0, 1]


def test_a_cancelled_attempt_is_dropped_now_and_when_it_comes_late() -> None:
    queue = JobQueue()
    queue.push(make_job(attempt=1), 0.0)
    queue.push(make_job(task="c.other"), 0.0)
    assert queue.cancel("client.task", 2) == 1
    assert queue.push(make_job(attempt=2), 0.0) is PushOutcome.OUTDATED
    assert not queue.is_wanted("client.task", 2)
    assert queue.push(make_job(attempt=3), 0.0) is PushOutcome.ACCEPTED
    assert [job.header.task for job in drain(queue)] == ["c.other", "client.task"]
    assert queue.dropped == 2


def test_an_older_attempt_gives_way_to_a_newer_one() -> None:
    queue = JobQueue()
    queue.push(make_job(attempt=1), 0.0)
    queue.push(make_job(attempt=2), 0.0)
    assert queue.push(make_job(attempt=1, micro_batch=1), 0.0) is PushOutcome.OUTDATED
    assert [job.header.attempt for job in drain(queue)] == [2]
    assert queue.dropped == 2


def test_cancellations_are_remembered_only_for_a_bounded_number_of_tasks() -> None:
    queue = JobQueue(max_remembered_tasks=10)
    for number in range(11):
        queue.cancel(f"c.{number}", 5)
    assert queue.is_wanted("c.0", 1)
    assert not queue.is_wanted("c.1", 5)


def test_what_has_expired_is_never_run() -> None:
    queue = JobQueue()
    queue.push(make_job(task="c.gone", ends_ms=50.0), 0.0)
    queue.push(make_job(task="c.alive", ends_ms=200.0), 0.0)
    assert queue.push(make_job(task="c.late", ends_ms=90.0), 90.0) is PushOutcome.EXPIRED
    assert [job.header.task for job in drain(queue, now_ms=100.0)] == ["c.alive"]
    assert queue.dropped == 2
    assert queue.waiting_bytes == 0


def test_a_full_queue_refuses_until_something_has_expired() -> None:
    for queue in (JobQueue(max_jobs=2), JobQueue(max_bytes=40)):
        queue.push(make_job(task="c.a", ends_ms=10.0), 0.0)
        queue.push(make_job(task="c.b", ends_ms=100.0), 0.0)
        assert queue.push(make_job(task="c.c", ends_ms=100.0), 5.0) is PushOutcome.FULL
        assert queue.push(make_job(task="c.c", ends_ms=100.0), 10.0) is PushOutcome.ACCEPTED


def test_all_jobs_of_a_fragment_that_will_not_come_are_taken_at_once() -> None:
    queue = JobQueue()
    for micro_batch in range(3):
        queue.push(make_job(micro_batch=micro_batch, fragment=FRAGMENTS[0]), 0.0)
    queue.push(make_job(task="c.other", fragment=FRAGMENTS[1]), 0.0)
    assert len(queue.take(FRAGMENTS[0])) == 3
    assert [job.header.task for job in drain(queue)] == ["c.other"]


@given(st.lists(st.tuples(jobs, st.integers(0, 5))), st.integers(0, 100))
def test_whatever_is_pushed_comes_out_once_in_order_or_is_counted_as_dropped(
    pushes: list[tuple[MicroBatchJob, int]], now_ms: int
) -> None:
    queue = JobQueue(max_jobs=8, max_bytes=100)
    accepted, refused, run = [], 0, []
    for job, pops in pushes:
        admission = queue.push(job, 0.0)
        if admission is PushOutcome.ACCEPTED:
            accepted.append(job)
        refused += admission is PushOutcome.OUTDATED
        for _ in range(pops // 4):
            run += [popped] if (popped := queue.pop(0.0, READY)) else []
        assert len(queue) <= 8
        assert queue.waiting_bytes == 16 * len(queue) <= 100
    expected_ms = queue.expected_ms
    rest = drain(queue)
    assert sum(job.expected_ms for job in rest) == expected_ms
    run += rest
    assert len({id(job) for job in run}) == len(run)
    assert len(run) + queue.dropped - refused == len(accepted)
    assert len(queue) == queue.waiting_bytes == 0
    assert queue.pop(float(now_ms), READY) is None
    for stage in {(job.header.task, job.header.attempt) for job in rest}:
        order = [job.header.micro_batch for job in rest if (job.header.task, job.header.attempt) == stage]
        assert order == sorted(order)


@given(st.lists(jobs, max_size=30), st.integers(0, 200))
def test_nothing_expired_and_nothing_unready_is_ever_popped(pushed: list[MicroBatchJob], now_ms: int) -> None:
    queue = JobQueue()
    for job in pushed:
        queue.push(job, 0.0)
    ready = frozenset(FRAGMENTS[:2])
    for job in drain(queue, float(now_ms), ready):
        assert job.ends_ms > now_ms
        assert job.route.fragment in ready
    queue.expire(float(now_ms))
    assert all(job.ends_ms > now_ms for job in drain(queue))


def test_micro_batches_that_run_elsewhere_leave_the_queue_unless_they_are_of_the_second_run() -> None:
    queue = JobQueue()
    for number in range(4):
        queue.push(make_job(micro_batch=number), 0.0)
    queue.push(make_job(task="c.other", micro_batch=1), 0.0)
    again = make_job(micro_batch=2)
    header = again.header.model_copy(update={"second_run": True})
    queue.push(replace(again, header=header), 0.0)
    assert queue.cancel_first_run(again.header.task, 1, {1, 2}) == 2
    left = [job.key for job in drain(queue)]
    assert len(left) == 4
    assert sorted((key.micro_batch, key.second_run) for key in left if key.task != "c.other") == [
        (0, False),
        (2, True),
        (3, False),
    ]
    assert queue.is_wanted(again.header.task, 1)
