"""Where an output goes next, and under which header. Pure (docs/decisions/0003-source-routing.md)."""

from dataclasses import dataclass

from splitplace.edge_node.executor import Done, Output
from splitplace.messages.frames import TensorHeader
from splitplace.messages.task import StageReport
from splitplace.messages.topics import AGGREGATOR_INBOX


@dataclass(frozen=True, slots=True)
class Shipment:
    """One encoded output on its way to one receiver."""

    receiver: str
    """A node, or the aggregator's inbox."""
    header: TensorHeader


def shipments(done: Done, output: Output, node: str, now_ms: float) -> tuple[Shipment, ...]:
    """One shipment for every stage that reads this one's output, or one to the aggregator.

    Args:
        done: the job, with what it cost.
        output: what it made.
        node: this node.
        now_ms: on the clock of the job's times.

    Returns:
        Nothing where nobody wants the answer any more.
    """
    job, header = done.job, done.job.header
    expires_ms = job.ends_ms - now_ms
    if expires_ms <= 0:
        return ()
    report = StageReport(stage=job.route.stage, node=node, queue_ms=done.queue_ms, compute_ms=done.compute_ms)
    sent = header.model_copy(
        update={
            "expires_ms": expires_ms,
            "dtype": output.dtype,
            "shape": output.shape,
            "codec": output.codec,
            "encoded_bytes": len(output.encoded),
            "chunk": 0,
            "route": None,
            "stage": job.route.stage,
            "trace": (*header.trace, report),
            "moved_bytes": header.moved_bytes + header.encoded_bytes,
        }
    )
    if not job.route.next:
        return (Shipment(AGGREGATOR_INBOX, sent),)
    return tuple(
        Shipment(route.node, sent.model_copy(update={"route": route, "stage": route.stage}))
        for route in job.route.next
    )
