"""Jobs for tests of what works on them."""

import numpy as np
from numpy.typing import NDArray

from splitplace.edge_node.queue import MicroBatchJob
from splitplace.messages.frames import Route, TensorHeader

FRAGMENTS = tuple(digit * 64 for digit in "abc")


def make_job(
    *,
    task: str = "client.task",
    attempt: int = 1,
    micro_batch: int = 0,
    fragment: str = FRAGMENTS[0],
    stage: str = "stage",
    arrived_ms: float = 0.0,
    ends_ms: float = 1000.0,
    expected_ms: float = 1.0,
    tensor: NDArray[np.uint8] | None = None,
    next_routes: tuple[Route, ...] = (),
) -> MicroBatchJob:
    tensor = np.zeros((1, 16), np.uint8) if tensor is None else tensor
    route = Route(stage=stage, node="n1", fragment=fragment, next=next_routes)
    header = TensorHeader(
        task=task,
        attempt=attempt,
        application="tiny",
        variant="any",
        micro_batch=micro_batch,
        micro_batches=1000,
        expires_ms=max(0.0, ends_ms - arrived_ms),
        dtype="uint8",
        shape=tensor.shape,
        codec="raw",
        encoded_bytes=tensor.nbytes,
        route=route,
        stage=stage,
    )
    return MicroBatchJob(
        header=header,
        route=route,
        encoded=tensor.tobytes(),
        arrived_ms=arrived_ms,
        ends_ms=ends_ms,
        expected_ms=expected_ms,
    )
