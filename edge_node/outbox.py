"""Sends outputs to the next nodes or to the aggregator (docs/decisions/0003-source-routing.md)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from splitplace.bus.background import now_ms
from splitplace.bus.connection import Bus
from splitplace.edge_node.executor import Done
from splitplace.edge_node.link_meter import LinkMeter
from splitplace.edge_node.output_ratios import OutputRatios
from splitplace.messages.frames import AGGREGATOR_INBOX, EncodedBundle, TensorHeader, tensor_frames
from splitplace.messages.task import StageReport
from splitplace.messages.topics import TENSOR

MAX_FRAMES_IN_FLIGHT = 16
"""Frames that the broker has not acknowledged yet."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """An encoded output for one receiver."""

    receiver: str
    """A node, or the aggregator's inbox."""
    header: TensorHeader


def shipments(done: Done, output: EncodedBundle, node: str, at_ms: float) -> tuple[Shipment, ...]:
    """Address an output to every stage that reads it, or to the aggregator if none does. Pure.

    Args:
        done: the job, with its times.
        output: what the job's fragment computed.
        node: this node.
        at_ms: now, on the clock of the job's times.

    Returns:
        One shipment for each receiver; none if the task has expired.
    """
    job, header = done.job, done.job.header
    expires_ms = job.ends_ms - at_ms
    if expires_ms <= 0:
        return ()
    report = StageReport(stage=job.route.stage, node=node, queue_ms=done.queue_ms, compute_ms=done.compute_ms)
    sent = header.model_copy(
        update=output.fields
        | {
            "expires_ms": expires_ms,
            "chunk": 0,
            "route": None,
            "stage": job.route.stage,
            "trace": (*header.trace, report),
            "moved_bytes": header.moved_bytes + header.body_bytes,
        }
    )
    if not job.route.next:
        return (Shipment(AGGREGATOR_INBOX, sent),)
    return tuple(
        Shipment(route.node, sent.model_copy(update={"route": route, "stage": route.stage}))
        for route in job.route.next
    )


class Outbox:
    """Sends outputs on the tensor connection."""

    def __init__(self, bus: Bus, node: str, meter: LinkMeter | None = None) -> None:
        """An outbox on a connection.

        Args:
            bus: carries the frames.
            node: name of this node.
            meter: told of frames and acknowledgements.
        """
        self._meter = LinkMeter() if meter is None else meter
        self.ratios = OutputRatios()
        """What compression saves from outputs, by fragment."""
        self.expired = 0
        """Outputs whose task expired before they were sent."""
        self._bus = bus
        self._node = node
        self._frames = asyncio.Semaphore(MAX_FRAMES_IN_FLIGHT)

    async def send(self, done: Done, output: EncodedBundle) -> None:
        """Send an output to all receivers. Returns when the broker has it or the task has expired."""
        self.ratios.add(done.job.route.fragment, len(output.body), output.raw_bytes)
        started_ms = now_ms()
        outgoing = shipments(done, output, self._node, started_ms)
        if not outgoing:
            self.expired += 1
            return
        try:
            async with asyncio.timeout((done.job.ends_ms - started_ms) / 1000):
                if len(outgoing) == outgoing[0].header.chunks == 1:
                    await self._send_alone(outgoing[0], output)
                else:
                    await self._send_all(outgoing, output)
        except TimeoutError:
            self.expired += 1

    async def _send_alone(self, shipment: Shipment, output: EncodedBundle) -> None:
        """Send an output of one frame, without a task of its own."""
        (frame,) = tensor_frames(shipment.header, output.body)
        async with self._frames:
            await self._send_frame(frame, shipment.receiver)

    async def _send_all(self, outgoing: Sequence[Shipment], output: EncodedBundle) -> None:
        async with asyncio.TaskGroup() as sending:
            for shipment in outgoing:
                for frame in tensor_frames(shipment.header, output.body):
                    await self._frames.acquire()
                    task = sending.create_task(self._send_frame(frame, shipment.receiver))
                    task.add_done_callback(lambda _: self._frames.release())

    async def _send_frame(self, frame: bytes, receiver: str) -> None:
        alone, began_ms = self._meter.sending(), now_ms()
        try:
            await self._bus.send_frame(TENSOR, frame, receiver=receiver, sender=self._node)
        except BaseException:
            self._meter.given_up()
            raise
        self._meter.acknowledged(len(frame), began_ms, now_ms(), alone=alone)
