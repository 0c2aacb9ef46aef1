"""All nodes at once, beside a schedule: where a stage fits, and how soon it could end there at best.

What a schedule computes exactly for one node, this bounds from below for all of them in a few array
operations, so that only nodes which may win are asked for an exact offer.
"""

import numpy as np

from messages.application import INPUT, Stage
from policies.cluster_columns import Flags, Floats
from policies.prediction import HOP_MS, RETURN_HOPS, Offer, Schedule

_ROUNDING = 1e-12
"""Relative: a bound and the exact figure are added up in different orders."""


class Board:
    """A schedule, and the columns of its cluster."""

    def __init__(self, schedule: Schedule, usable: Flags) -> None:
        """A board for a schedule on which nothing is put yet.

        Args:
            schedule: what is put stands there; it must be put through the board.
            usable: [H] nodes that may be used.
        """
        columns = schedule.cluster.columns
        self.schedule = schedule
        self.columns = columns
        self._usable = usable
        self.free_ms = columns.ready_ms(schedule.now_ms, schedule.due_ms)
        self._free_bytes = columns.free_bytes()
        self._brought: dict[str, Flags] = {}
        self._start_ms = schedule.start_ms
        self._work_ms: dict[str, Floats] = {}

    def fits(self, stage: Stage) -> Flags:
        """Usable nodes that have room for a stage, beside what was put there."""
        fragment = self.schedule.job.fragments[stage.name]
        held = self.columns.reserved(stage.fragment) | self._brought.get(stage.fragment, False)
        return self._usable & (held | (fragment.peak_memory_bytes <= self._free_bytes))

    def work_ms(self, stage: Stage) -> Floats:
        """Computing time of a stage on each node."""
        if stage.fragment not in self._work_ms:
            job = self.schedule.job
            self._work_ms[stage.fragment] = self.columns.work_ms(
                job.fragments[stage.name], job.application.reference_score, len(job.micro_batches), job.batch
            )
        return self._work_ms[stage.fragment]

    def soonest_ms(self, stage: Stage) -> Floats:
        """When a stage, whose source was put before, could end on each node at best."""
        if stage.source == INPUT:
            first_ms = last_ms = self._start_ms
            byte_ms = self.columns.byte_ms
        else:
            source = self.schedule.offers[stage.source]
            first_ms, last_ms = source.finish_ms[0], source.finish_ms[-1]
            byte_ms = np.maximum(self.columns.byte_ms, self.columns.byte_ms[self.columns.index[source.node]])
        return self._bounds(stage, self.free_ms, first_ms, last_ms, byte_ms)[2]

    def soonest_alone_ms(self) -> Floats:
        """When the job could end at best, were all of its stages on the same node, for each node."""
        free_ms = self.free_ms
        finish_ms: dict[str, tuple[Floats | float, Floats | float]] = {
            INPUT: (self._start_ms, self._start_ms)
        }
        ends_ms = free_ms
        for stage in self.schedule.job.variant.stages:
            first_ms, last_ms = finish_ms[stage.source]
            first_ms, free_ms, end_ms = self._bounds(stage, free_ms, first_ms, last_ms, self.columns.byte_ms)
            finish_ms[stage.name] = (first_ms, free_ms)
            ends_ms = np.maximum(ends_ms, end_ms)
        return ends_ms

    def _bounds(
        self,
        stage: Stage,
        free_ms: Floats,
        first_ms: Floats | float,
        last_ms: Floats | float,
        byte_ms: Floats,
    ) -> tuple[Floats, Floats, Floats]:
        """What a stage cannot undercut if only its first or only its last micro-batch had to wait.

        Args:
            stage: which one.
            free_ms: when each node is free for it.
            first_ms: when its first input is ready where it comes from.
            last_ms: the same of the last one.
            byte_ms: to bring a byte of it to each node.

        Returns:
            On each node: when it is through with the first micro-batch, with the last, and when that is at
            its destination.
        """
        job = self.schedule.job
        fragment, work_ms = job.fragments[stage.name], self.work_ms(stage)
        last = job.micro_batches[-1]
        image_ms = byte_ms * fragment.input.bytes_per_image
        begin_ms = np.maximum(free_ms, self.columns.fragment_ready_ms(fragment, self.schedule.now_ms))
        begin_ms = np.maximum(begin_ms, first_ms + job.micro_batches[0] * image_ms + HOP_MS)
        done_ms = begin_ms + work_ms
        if len(job.micro_batches) > 1:
            received_ms = np.maximum(first_ms + job.batch * image_ms, last_ms + last * image_ms) + HOP_MS
            done_ms = np.maximum(done_ms, received_ms + work_ms * (last / job.batch))
        end_ms = done_ms
        if stage.name in job.sinks:
            end_ms = (
                done_ms + last * fragment.output.bytes_per_image * self.columns.byte_ms + RETURN_HOPS * HOP_MS
            )
        return begin_ms + work_ms / len(job.micro_batches), done_ms, end_ms * (1 - _ROUNDING)

    def best_offer(self, stage: Stage) -> Offer | None:
        """The offer that ends first; among equals that of the node that is free first, then by name."""
        fits = self.fits(stage)
        if not fits.any():
            return None
        bounds = np.where(fits, self.soonest_ms(stage), np.inf)
        first = int(bounds.argmin())
        limit_ms = self.offer(stage, first).end_ms
        contenders = np.flatnonzero(fits & (bounds <= limit_ms))
        order = np.lexsort((self.columns.rank[contenders], self.free_ms[contenders], bounds[contenders]))
        best: Offer | None = None
        best_key = (0.0, 0.0, 0)
        for index in contenders[order].tolist():
            if best is not None and bounds[index] >= best.end_ms * (1 - 2 * _ROUNDING):
                break
            offer = self.offer(stage, index)
            key = (offer.end_ms, float(self.free_ms[index]), int(self.columns.rank[index]))
            if best is None or key < best_key:
                best, best_key = offer, key
        return best

    def offer(self, stage: Stage, index: int) -> Offer:
        """What comes of a stage on a node."""
        return self.schedule.offer(stage, self.columns.names[index])

    def put(self, stage: Stage, offer: Offer) -> None:
        """Take an offer made for the stage."""
        self.schedule.put(stage, offer)
        self._occupy(stage, self.columns.index[offer.node], offer.finish_ms[-1])

    def reserve(self, stage: Stage, index: int, work_ms: float) -> None:
        """Count memory and work of a stage that is to stand on a node, whatever comes before it."""
        self._occupy(stage, index, float(self.free_ms[index]) + work_ms)

    def _occupy(self, stage: Stage, index: int, until_ms: float) -> None:
        self.free_ms[index] = until_ms
        sha256 = stage.fragment
        brought = self._brought.setdefault(sha256, np.zeros(len(self.free_ms), dtype=bool))
        if not brought[index] and not self.columns.reserved(sha256)[index]:
            self._free_bytes[index] -= self.schedule.job.fragments[stage.name].peak_memory_bytes
            brought[index] = True
