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
        with np.errstate(divide="ignore"):
            self._byte_ms = 1 / (1000 * columns.link)

    def fits(self, stage: Stage) -> Flags:
        """Usable nodes that have room for a stage, beside what was put there."""
        fragment = self.schedule.job.fragments[stage.name]
        held = self.columns.reserved(stage.fragment) | self._brought.get(stage.fragment, False)
        return self._usable & (held | (fragment.peak_memory_bytes <= self._free_bytes))

    def work_ms(self, stage: Stage) -> Floats:
        """Computing time of a stage on each node."""
        job = self.schedule.job
        reference = job.application.reference_score
        return self.columns.work_ms(job.fragments[stage.name], reference, len(job.micro_batches), job.batch)

    def soonest_ms(self, stage: Stage, work_ms: Floats) -> Floats:
        """When a stage could end on each node, if only its first or only its last micro-batch had to wait.

        Args:
            stage: whose source was put before.
            work_ms: [H] of the stage, at least.
        """
        job, schedule = self.schedule.job, self.schedule
        fragment = job.fragments[stage.name]
        first, last = job.micro_batches[0], job.micro_batches[-1]
        byte_ms = self._byte_ms
        first_ms = last_ms = schedule.start_ms
        if stage.source != INPUT:
            source = schedule.offers[stage.source]
            first_ms, last_ms = source.finish_ms[0], source.finish_ms[-1]
            byte_ms = np.maximum(byte_ms, self._byte_ms[self.columns.index[source.node]])
        image_ms = byte_ms * fragment.input.bytes_per_image
        begin_ms = np.maximum(self.free_ms, self.columns.fragment_ready_ms(fragment, schedule.now_ms))
        begin_ms = np.maximum(begin_ms, first_ms + first * image_ms + HOP_MS)
        received_ms = np.maximum(first_ms + job.batch * image_ms, last_ms + last * image_ms) + HOP_MS
        end_ms: Floats = np.maximum(
            begin_ms + work_ms, received_ms + work_ms * (last / job.batch) * (1 - _ROUNDING)
        )
        if stage.name in job.sinks:
            end_ms = end_ms + last * fragment.output.bytes_per_image * self._byte_ms + RETURN_HOPS * HOP_MS
        return end_ms * (1 - _ROUNDING)

    def best_offer(self, stage: Stage) -> Offer | None:
        """The offer that ends first; among equals that of the node that is free first, then by name."""
        fits = self.fits(stage)
        if not fits.any():
            return None
        bounds = np.where(fits, self.soonest_ms(stage, self.work_ms(stage)), np.inf)
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
