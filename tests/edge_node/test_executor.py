"""The computing thread, with fragments made of Python functions instead of ONNX files."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from splitplace.bus.background import now_ms
from splitplace.edge_node.call import Failure
from splitplace.edge_node.executor import OUTGOING_DEPTH, Done, Executor
from splitplace.edge_node.gains import Gains
from splitplace.edge_node.queue import JobQueue, MicroBatchJob, PushOutcome
from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.edge_node.sessions import FragmentError
from splitplace.messages.frames import EncodedBundle
from splitplace.messages.pieces import NamedTensor
from splitplace.messages.tensors import TensorSpec
from tests.edge_node.jobs import FRAGMENTS, make_job
from tests.support.waiting import PATIENCE_S, pass_time

SPEC = TensorSpec(dtype="uint8", shape=(16,))
Function = Callable[[NDArray[Any]], NDArray[Any]]


class FunctionRuntime:
    """Looks like a loaded fragment."""

    inputs = (NamedTensor(name="before", spec=SPEC),)
    outputs = (NamedTensor(name="after", spec=SPEC),)

    def __init__(self, function: Function, *, has_all_cores: bool = False) -> None:
        self._function = function
        self.has_all_cores = has_all_cores
        self.modes: list[bool] = []
        """Whether each run had all cores."""

    def run_bundle(
        self, tensors: Mapping[str, NDArray[Any]], *, all_cores: bool = False
    ) -> dict[str, NDArray[Any]]:
        self.modes.append(all_cores)
        return {"after": self._function(tensors["before"])}


def runtime(function: Function = lambda batch: batch + 1) -> FragmentRuntime:
    return cast("FragmentRuntime", FunctionRuntime(function))


def job(**fields: Any) -> MicroBatchJob:
    return make_job(arrived_ms=now_ms(), ends_ms=now_ms() + 20_000, **fields)


class Results:
    def __init__(self) -> None:
        self._done: queue.SimpleQueue[Done] = queue.SimpleQueue()

    def deliver(self, done: Done) -> None:
        self._done.put(done)

    def next(self) -> Done:
        return self._done.get(timeout=PATIENCE_S)

    def __len__(self) -> int:
        return self._done.qsize()


@contextmanager
def running(**options: Any) -> Iterator[tuple[Executor, Results]]:
    results = Results()
    executor = Executor(JobQueue(), results.deliver, **options)
    executor.start()
    try:
        yield executor, results
    finally:
        executor.stop()
        assert not any(thread.is_alive() for thread in executor._threads)


def assert_computes_another(executor: Executor, results: Results) -> None:
    """A job that comes later, of another fragment, is the next to be done."""
    executor.add_session(FRAGMENTS[1], runtime())
    executor.push(job(task="c.another", fragment=FRAGMENTS[1]))
    assert results.next().job.header.task == "c.another"


def test_a_job_starts_when_its_fragment_has_been_loaded() -> None:
    with running() as (executor, results):
        assert executor.push(job()) is PushOutcome.ACCEPTED
        assert executor.busy() == {FRAGMENTS[0]}
        pushed_ms = now_ms()
        assert_computes_another(executor, results)
        waited_ms = now_ms() - pushed_ms
        executor.add_session(FRAGMENTS[0], runtime())
        done = results.next()
        assert isinstance(done.result, EncodedBundle)
        assert done.result.body == bytes([1] * 16)
        (sent,) = done.result.tensors
        assert (sent.dtype, sent.shape) == ("uint8", (1, 16))
        assert done.queue_ms >= waited_ms
        assert executor.load().executed == 2


def test_while_one_job_runs_the_others_are_counted_as_work_to_do() -> None:
    started, finish = threading.Event(), threading.Event()

    def wait(batch: NDArray[Any]) -> NDArray[Any]:
        started.set()
        finish.wait(10)
        return batch

    with running() as (executor, results):
        executor.add_session(FRAGMENTS[0], runtime(wait))
        for micro_batch in range(3):
            executor.push(job(micro_batch=micro_batch, expected_ms=5.0))
        assert started.wait(10)
        load = executor.load()
        assert (load.queue_length, load.queue_ms, load.executed) == (3, 15.0, 0)
        assert executor.busy() == {FRAGMENTS[0]}
        finish.set()
        for _ in range(3):
            results.next()
        assert executor.busy() == frozenset()


def test_when_results_are_not_sent_the_thread_stops_computing_and_goes_on_when_they_are() -> None:
    with running() as (executor, results):
        executor.add_session(FRAGMENTS[0], runtime())
        for micro_batch in range(OUTGOING_DEPTH + 3):
            executor.push(job(micro_batch=micro_batch))
        for _ in range(OUTGOING_DEPTH):
            results.next()
        executor.sent()
        assert results.next().job.header.micro_batch == OUTGOING_DEPTH
        executor.stop()
        assert executor.load().executed == OUTGOING_DEPTH + 1
        assert len(results) == 0


@pytest.mark.parametrize("pace", [0.5, 0.125])
def test_a_paced_node_takes_the_reciprocal_of_its_share_as_long(pace: float) -> None:
    def burn(batch: NDArray[Any]) -> NDArray[Any]:
        until = time.thread_time() + 0.03
        while time.thread_time() < until:
            pass
        return batch

    with running(pace=pace) as (executor, results):
        executor.add_session(FRAGMENTS[0], runtime(burn))
        executor.push(job())
        done = results.next()
        assert done.compute_ms >= 0.95 * 30 / pace
        executor.push(job(task="c.next"))
        results.next()
        measured = executor.measured(FRAGMENTS[0])
        assert measured is not None
        assert measured.of(1) >= 0.95 * 30 / pace


def test_the_cost_of_a_call_is_not_part_of_the_time_of_an_image() -> None:
    def slow(batch: NDArray[Any]) -> NDArray[Any]:
        pass_time(0.05)
        return batch

    with running(call_ms=lambda _: 40.0) as (executor, results):
        executor.add_session(FRAGMENTS[0], runtime(slow))
        executor.push(job())
        done = results.next()
        assert executor.measured(FRAGMENTS[0]) == pytest.approx((40.0, done.compute_ms - 40.0))


def failing(error: Exception) -> Function:
    def fail(_: NDArray[Any]) -> NDArray[Any]:
        raise error

    return fail


@pytest.mark.parametrize(
    ("function", "tensor", "kind"),
    [
        (failing(FragmentError("crashed")), np.zeros((1, 16), np.uint8), "runtime"),
        (failing(RuntimeError("native")), np.zeros((1, 16), np.uint8), "runtime"),
        (failing(MemoryError()), np.zeros((1, 16), np.uint8), "memory"),
        (lambda batch: batch, np.zeros((1, 17), np.uint8), "input"),
        (lambda batch: batch, np.zeros((1, 4, 4), np.uint8), "input"),
    ],
)
def test_a_job_that_fails_says_why_and_the_next_one_runs(
    function: Function, tensor: NDArray[np.uint8], kind: str
) -> None:
    with running() as (executor, results):
        executor.add_session(FRAGMENTS[0], runtime(function))
        executor.add_session(FRAGMENTS[1], runtime())
        executor.push(job(tensor=tensor))
        failure = results.next().result
        assert isinstance(failure, Failure)
        assert failure.kind == kind
        assert failure.reason
        executor.push(job(fragment=FRAGMENTS[1], task="c.next"))
        assert isinstance(results.next().result, EncodedBundle)
        assert executor.load().executed == 1


def test_an_output_too_big_to_travel_is_a_failure_before_it_is_computed() -> None:
    class Exploding(FunctionRuntime):
        outputs = (NamedTensor(name="after", spec=TensorSpec(dtype="float32", shape=(1 << 20, 32))),)

    with running() as (executor, results):
        executor.add_session(
            FRAGMENTS[0], cast("FragmentRuntime", Exploding(failing(AssertionError("was run"))))
        )
        executor.push(job())
        failure = results.next().result
        assert isinstance(failure, Failure)
        assert failure.kind == "input"
        assert "134217728 bytes" in failure.reason


def test_a_job_of_an_unloaded_fragment_waits_for_it_to_come_back() -> None:
    with running() as (executor, results):
        loaded = runtime()
        executor.add_session(FRAGMENTS[0], loaded)
        assert executor.remove_session(FRAGMENTS[0]) is loaded
        executor.push(job())
        assert_computes_another(executor, results)
        executor.add_session(FRAGMENTS[0], loaded)
        assert isinstance(results.next().result, EncodedBundle)


def test_stopping_does_not_wait_for_what_is_queued() -> None:
    with running() as (executor, _):
        for micro_batch in range(100):
            executor.push(job(micro_batch=micro_batch))


def test_the_age_of_the_running_job_is_told_while_it_runs() -> None:
    started, finish = threading.Event(), threading.Event()

    def wait(batch: NDArray[Any]) -> NDArray[Any]:
        started.set()
        finish.wait(10)
        return batch

    clock = [100.0]
    with running(clock=lambda: clock[0]) as (executor, results):
        assert executor.running() == ()
        executor.add_session(FRAGMENTS[0], runtime(wait))
        executor.push(job(expected_ms=7.0))
        assert started.wait(10)
        clock[0] = 350.0
        (told,) = executor.running()
        assert (told.fragment, told.age_ms, told.expected_ms) == (FRAGMENTS[0], 250.0, 7.0)
        assert executor.load().running == told
        finish.set()
        results.next()
        assert executor.running() == ()


def test_the_first_run_of_a_fragment_is_guarded_and_later_ones_are_not() -> None:
    told: list[tuple[str, bool | None]] = []

    class Guard:
        def begin(self, fragment: str) -> None:
            told.append((fragment, None))

        def end(self, fragment: str, *, ran: bool) -> None:
            told.append((fragment, ran))

    with running(guard=Guard()) as (executor, results):
        executor.add_session(FRAGMENTS[0], runtime())
        for number in range(3):
            executor.push(job(task=f"c.{number}"))
            results.next()
            executor.sent()
    assert told == [(FRAGMENTS[0], None), (FRAGMENTS[0], True)]


TWO_CORES = Gains(threads=2, alone=1.8, together=1.95)


class Pace:
    """Lets jobs end one by one, and counts those that run."""

    def __init__(self) -> None:
        self.most = 0
        self._running = 0
        self._lock = threading.Lock()
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def __call__(self, batch: NDArray[Any]) -> NDArray[Any]:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        self.began.release()
        assert self.may_end.acquire(timeout=PATIENCE_S)
        with self._lock:
            self._running -= 1
        return batch


def proven(executor: Executor, results: Results, fragment: FunctionRuntime, pace: Pace) -> None:
    """Let a fragment run for the first time."""
    executor.add_session(FRAGMENTS[0], cast("FragmentRuntime", fragment))
    executor.push(job(task="c.first"))
    pace.may_end.release()
    results.next()
    executor.sent()
    assert pace.began.acquire(timeout=PATIENCE_S)


def test_a_job_by_itself_gets_all_cores_and_a_long_queue_one_core_a_job() -> None:
    pace = Pace()
    fragment = FunctionRuntime(pace, has_all_cores=True)
    with running(gains=TWO_CORES) as (executor, results):
        proven(executor, results, fragment, pace)
        assert fragment.modes == [True]
        executor.push(job(task="c.alone"))
        assert pace.began.acquire(timeout=PATIENCE_S)
        for micro_batch in range(40):
            executor.push(job(task="c.many", micro_batch=micro_batch))
        assert not pace.began.acquire(timeout=0.05), "nothing runs beside a job that has all cores"
        pace.may_end.release()
        for _ in range(2):
            assert pace.began.acquire(timeout=PATIENCE_S)
        assert [told.fragment for told in executor.running()] == 2 * [FRAGMENTS[0]]
        assert [told.expected_ms for told in executor.running()] == 2 * [TWO_CORES.alone]
        pace.may_end.release(40)
        for _ in range(41):
            results.next()
            executor.sent()
    assert fragment.modes[:4] == [True, True, False, False]
    assert pace.most == 2


def test_the_first_run_of_a_fragment_is_by_itself() -> None:
    pace = Pace()
    with running(gains=TWO_CORES) as (executor, results):
        executor.add_session(FRAGMENTS[0], cast("FragmentRuntime", FunctionRuntime(pace)))
        executor.push(job(micro_batch=0))
        executor.push(job(micro_batch=1))
        assert pace.began.acquire(timeout=PATIENCE_S)
        assert not pace.began.acquire(timeout=0.05)
        pace.may_end.release(2)
        results.next()
        results.next()
        assert pace.most == 1


class Purse:
    """Lends for so many runs."""

    def __init__(self, runs: int) -> None:
        self.left = runs
        self.asked = 0

    def lend(self, fragment: str) -> bool:
        assert fragment == FRAGMENTS[0]
        self.asked += 1
        if not self.left:
            return False
        self.left -= 1
        return True

    def repay(self, fragment: str) -> None:
        assert fragment == FRAGMENTS[0]
        self.left += 1


@pytest.mark.parametrize(("runs", "at_once"), [(0, 1), (1, 2), (7, 3)])
def test_as_many_jobs_of_a_fragment_run_at_once_as_there_are_cores_and_memory_for(
    runs: int, at_once: int
) -> None:
    pace, purse = Pace(), Purse(runs)
    with running(gains=Gains(3, alone=1.0, together=3.0), lender=purse) as (executor, results):
        proven(executor, results, FunctionRuntime(pace), pace)
        for micro_batch in range(6):
            executor.push(job(task="c.many", micro_batch=micro_batch))
        for _ in range(at_once):
            assert pace.began.acquire(timeout=PATIENCE_S)
        assert not pace.began.acquire(timeout=0.05)
        assert len(executor.running()) == at_once
        pace.may_end.release(6)
        for _ in range(6):
            results.next()
            executor.sent()
    assert (pace.most, purse.left) == (at_once, runs)
    assert purse.asked > 0


def test_other_fragments_run_beside_one_that_may_not_run_twice() -> None:
    pace = Pace()
    with running(gains=TWO_CORES, lender=Purse(0)) as (executor, results):
        proven(executor, results, FunctionRuntime(pace), pace)
        executor.add_session(FRAGMENTS[1], cast("FragmentRuntime", FunctionRuntime(pace)))
        for micro_batch in range(3):
            executor.push(job(task="c.many", micro_batch=micro_batch))
        executor.push(job(task="c.other", fragment=FRAGMENTS[1]))
        assert pace.began.acquire(timeout=PATIENCE_S)
        assert pace.began.acquire(timeout=PATIENCE_S)
        assert {told.fragment for told in executor.running()} == set(FRAGMENTS[:2])
        pace.may_end.release(4)
        for _ in range(4):
            results.next()
            executor.sent()


def test_nothing_is_computed_while_the_speed_is_measured() -> None:
    pace = Pace()
    with running(gains=TWO_CORES) as (executor, results):
        executor.add_session(FRAGMENTS[0], cast("FragmentRuntime", FunctionRuntime(pace)))
        executor.push(job())
        assert pace.began.acquire(timeout=PATIENCE_S)
        measured = threading.Event()

        def measure() -> int:
            assert executor.running() == ()
            executor.push(job(task="c.later"))
            assert not pace.began.acquire(timeout=0.05)
            measured.set()
            return 7

        answer: list[int] = []
        thread = threading.Thread(target=lambda: answer.append(executor.exclusively(measure)))
        thread.start()
        assert not measured.wait(0.05), "it waits for the running job"
        pace.may_end.release(2)
        thread.join(PATIENCE_S)
        assert answer == [7]
        assert {results.next().job.header.task, results.next().job.header.task} == {"client.task", "c.later"}
