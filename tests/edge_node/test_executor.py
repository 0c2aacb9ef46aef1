"""The computing thread, with fragments made of Python functions instead of ONNX files."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from splitplace.bus.background import now_ms
from splitplace.edge_node.executor import OUTGOING_DEPTH, Done, Executor, Failure, Output
from splitplace.edge_node.queue import JobQueue, MicroBatchJob, PushOutcome
from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.edge_node.sessions import FragmentError
from splitplace.messages.application import TensorSpec
from tests.edge_node.jobs import FRAGMENTS, make_job
from tests.support.waiting import PATIENCE_S, pass_time

SPEC = TensorSpec(dtype="uint8", shape=(16,))
Function = Callable[[NDArray[Any]], NDArray[Any]]


class FunctionRuntime:
    """Looks like a loaded fragment."""

    input = SPEC
    output = SPEC

    def __init__(self, function: Function) -> None:
        self.run = function


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
        assert not executor._thread.is_alive()


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
        assert isinstance(done.result, Output)
        assert done.result.encoded == bytes([1] * 16)
        assert (done.result.dtype, done.result.shape) == ("uint8", (1, 16))
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
        measured = executor.milliseconds_per_image(FRAGMENTS[0])
        assert measured is not None
        assert measured >= 0.95 * 30 / pace


def test_the_cost_of_a_call_is_not_part_of_the_time_of_an_image() -> None:
    def slow(batch: NDArray[Any]) -> NDArray[Any]:
        pass_time(0.05)
        return batch

    with running(call_ms=lambda _: 40.0) as (executor, results):
        executor.add_session(FRAGMENTS[0], runtime(slow))
        executor.push(job())
        done = results.next()
        assert executor.milliseconds_per_image(FRAGMENTS[0]) == pytest.approx(done.compute_ms - 40.0)


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
        assert isinstance(results.next().result, Output)
        assert executor.load().executed == 1


def test_an_output_too_big_to_travel_is_a_failure_before_it_is_computed() -> None:
    class Exploding(FunctionRuntime):
        output = TensorSpec(dtype="float32", shape=(1 << 20, 32))

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
        assert isinstance(results.next().result, Output)


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
        assert executor.running() is None
        executor.add_session(FRAGMENTS[0], runtime(wait))
        executor.push(job(expected_ms=7.0))
        assert started.wait(10)
        clock[0] = 350.0
        told = executor.running()
        assert told is not None
        assert (told.fragment, told.age_ms, told.expected_ms) == (FRAGMENTS[0], 250.0, 7.0)
        assert executor.load().running == told
        finish.set()
        results.next()
        assert executor.running() is None


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
