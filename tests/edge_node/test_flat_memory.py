"""What a node keeps of tensors and jobs is bounded, and full early."""

import numpy as np

from splitplace.bus.assembly import TensorAssembly
from splitplace.edge_node.queue import JobQueue
from tests.edge_node.jobs import FRAGMENTS, make_job
from tests.support.held import assert_flat

PERIOD_MS = 125.0
DAY_MS = 24 * 3600 * 1000.0


def key(number: int) -> str:
    return f"camera-{number % 7}.{number}.{number:08x}"


def test_a_node_that_never_gets_a_fragment_keeps_no_tensors_of_expired_jobs() -> None:
    queue = JobQueue()

    def handle(number: int) -> None:
        now_ms = PERIOD_MS * number
        tensor = np.zeros((1, 2000), np.uint8)
        job = make_job(task=key(number), arrived_ms=now_ms, ends_ms=now_ms + 100.0, tensor=tensor)
        queue.push(job, now_ms)
        queue.expire(now_ms)
        queue.cancel(key(number), 1)
        assert queue.pop(now_ms, FRAGMENTS[1:]) is None

    assert_flat(queue, handle)


def test_duplicates_of_tensors_are_remembered_for_a_minute_however_late_their_task_is_due() -> None:
    assembly = TensorAssembly()

    def handle(number: int) -> None:
        now_ms = PERIOD_MS * number
        header = make_job(task=key(number), arrived_ms=now_ms, ends_ms=now_ms + DAY_MS).header
        body = memoryview(bytes(header.encoded_bytes))
        assert assembly.add(header, body, now_ms) is not None
        assert assembly.add(header, body, now_ms) is None
        assembly.expire(now_ms)

    assert_flat(assembly, handle)
