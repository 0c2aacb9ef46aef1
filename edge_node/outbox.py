"""Sends outputs to the next nodes or the aggregator; a bounded number of frames is on the way at a time."""

import asyncio

from splitplace.bus.connection import Bus
from splitplace.edge_node.executor import Done, Output, now_ms
from splitplace.edge_node.forwarding import shipments
from splitplace.messages.frames import tensor_frames
from splitplace.messages.topics import TENSOR

MAX_FRAMES_ON_THE_WAY = 16


class Outbox:
    """What leaves the node on its tensor connection."""

    def __init__(self, bus: Bus, node: str) -> None:
        self.expired = 0
        """Outputs that could not be sent before nobody wanted them any more."""
        self._bus = bus
        self._node = node
        self._frames = asyncio.Semaphore(MAX_FRAMES_ON_THE_WAY)

    async def send(self, done: Done, output: Output) -> None:
        """Send an output to all its readers; returns when the broker has it, or it is too late."""
        now = now_ms()
        going = shipments(done, output, self._node, now)
        if not going:
            self.expired += 1
            return
        try:
            async with asyncio.timeout((done.job.ends_ms - now) / 1000), asyncio.TaskGroup() as sending:
                for shipment in going:
                    for frame in tensor_frames(shipment.header, output.encoded):
                        await self._frames.acquire()
                        task = sending.create_task(
                            self._bus.send_frame(TENSOR, frame, node=shipment.receiver)
                        )
                        task.add_done_callback(lambda _: self._frames.release())
        except TimeoutError:
            self.expired += 1
