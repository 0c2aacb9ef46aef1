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
        self._ready_ms = columns.ready_ms(schedule.now_ms, schedule.due_ms)
        self.free_ms = self._ready_ms.copy()
        """When each node is free, after what was put on it too."""
        self._free_bytes = columns.free_bytes()
        self._brought: dict[str, Flags] = {}
        self._start_ms = schedule.start_ms
        self._work_ms: dict[str, Floats] = {}
        self._first_inputs: dict[int, tuple[Floats, Floats]] = {}

    def fits(self, stage: Stage) -> Flags:
        """Usable nodes that have room for a stage, beside what was put there."""
        fragment = self.schedule.job.fragments[stage.name]
        room = self.columns.shared(stage.fragment) | (fragment.peak_memory_bytes <= self._free_bytes)
        if stage.fragment in self._brought:
            room |= self._brought[stage.fragment]
        return self._usable & room

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
            received_ms = self._inputs_received_ms(stage)
        else:
            source = self.schedule.offers[stage.source]
            byte_ms = np.maximum(self.columns.byte_ms, self.columns.byte_ms[self.columns.index[source.node]])
            received_ms = self._received_ms(stage, source.finish_ms[0], source.finish_ms[-1], byte_ms)
        return self._bounds(stage, self.free_ms, *received_ms)[1]

    def alone_before(self, limit_ms: float) -> list[tuple[int, float]]:
        """Nodes on which all stages together could end before a moment, with when at best; the soonest first.

        As if nothing had been put on the board. Not those that are ahead by no more than rounding.
        """
        stages = self.schedule.job.variant.stages
        limit_ms *= 1 - 2 * _ROUNDING
        work_ms = sum([self.work_ms(stage) for stage in stages[1:]], self.work_ms(stages[0]))
        computed_ms = np.maximum(self._ready_ms, self._start_ms + HOP_MS) + work_ms + RETURN_HOPS * HOP_MS
        if not (self._usable & (computed_ms * (1 - _ROUNDING) < limit_ms)).any():
            return []
        soonest_ms = self._soonest_alone_ms()
        nodes = np.flatnonzero(self._usable & (soonest_ms < limit_ms))
        nodes = nodes[np.argsort(soonest_ms[nodes], kind="stable")]
        return list(zip(nodes.tolist(), soonest_ms[nodes].tolist(), strict=True))

    def _soonest_alone_ms(self) -> Floats:
        """When the job could end at best, were all of its stages on the same node, for each node."""
        columns, micro_batches = self.columns, len(self.schedule.job.micro_batches)
        free_ms = ends_ms = self._ready_ms
        finish_ms: dict[str, tuple[Floats, Floats]] = {}
        for stage in self.schedule.job.variant.stages:
            if stage.source == INPUT:
                received_ms = self._inputs_received_ms(stage)
            else:
                received_ms = self._received_ms(stage, *finish_ms[stage.source], columns.byte_ms)
            work_ms = self.work_ms(stage)
            begin_ms = self._begin_ms(stage, free_ms, received_ms[0])
            free_ms, end_ms = self._bounds(stage, free_ms, *received_ms)
            finish_ms[stage.name] = (begin_ms + work_ms / micro_batches, free_ms)
            ends_ms = np.maximum(ends_ms, end_ms)
        return ends_ms

    def _inputs_received_ms(self, stage: Stage) -> tuple[Floats, Floats]:
        """`_received_ms` of a stage that reads the task's inputs: the same for all that read as much."""
        size = self.schedule.job.fragments[stage.name].input.bytes_per_image
        if size not in self._first_inputs:
            self._first_inputs[size] = self._received_ms(
                stage, self._start_ms, self._start_ms, self.columns.byte_ms
            )
        return self._first_inputs[size]

    def _received_ms(
        self, stage: Stage, first_ms: Floats | float, last_ms: Floats | float, byte_ms: Floats
    ) -> tuple[Floats, Floats]:
        """When each node could have a stage's first input, and when its last, at best.

        Args:
            stage: which one.
            first_ms: when its first input is ready where it comes from.
            last_ms: the same of the last one.
            byte_ms: to bring a byte of it to each node.
        """
        job = self.schedule.job
        sizes = job.micro_batches
        image_ms = byte_ms * job.fragments[stage.name].input.bytes_per_image
        received_ms = first_ms + sizes[0] * image_ms + HOP_MS
        if len(sizes) == 1:
            return received_ms, received_ms
        sent_ms = np.maximum(first_ms + job.batch * image_ms, last_ms + sizes[-1] * image_ms)
        return received_ms, sent_ms + HOP_MS

    def _begin_ms(self, stage: Stage, free_ms: Floats, first_ms: Floats) -> Floats:
        """When each node could begin a stage whose first input it has at `first_ms`."""
        begin_ms: Floats = np.maximum(free_ms, first_ms)
        if not self.columns.loaded_everywhere(stage.fragment):
            fragment = self.schedule.job.fragments[stage.name]
            begin_ms = np.maximum(begin_ms, self.columns.fragment_ready_ms(fragment, self.schedule.now_ms))
        return begin_ms

    def _bounds(
        self, stage: Stage, free_ms: Floats, first_ms: Floats, last_ms: Floats
    ) -> tuple[Floats, Floats]:
        """What a stage cannot undercut if only its first or only its last micro-batch had to wait.

        Args:
            stage: which one.
            free_ms: when each node is free for it.
            first_ms: when each node has the first input at best.
            last_ms: the same of the last one.

        Returns:
            When each node is through with it, and when the output is at its destination.
        """
        job = self.schedule.job
        work_ms, last = self.work_ms(stage), job.micro_batches[-1]
        done_ms = self._begin_ms(stage, free_ms, first_ms) + work_ms
        if len(job.micro_batches) > 1:
            done_ms = np.maximum(done_ms, last_ms + work_ms * (last / job.batch))
        end_ms = done_ms
        if stage.name in job.sinks:
            output_bytes = last * job.fragments[stage.name].output.bytes_per_image
            end_ms = done_ms + output_bytes * self.columns.byte_ms + RETURN_HOPS * HOP_MS
        return done_ms, end_ms * (1 - _ROUNDING)

    def best_offer(self, stage: Stage) -> Offer | None:
        """The offer that ends first; among equals that of the node that is free first, then by name."""
        fits = self.fits(stage)
        if not fits.any():
            return None
        bounds = np.where(fits, self.soonest_ms(stage), np.inf)
        first = int(bounds.argmin())
        likely = self.offer(stage, first)
        contenders = np.flatnonzero(fits & (bounds <= likely.end_ms))
        if len(contenders) == 1:
            return likely
        order = np.lexsort((self.columns.rank[contenders], self.free_ms[contenders], bounds[contenders]))
        best: Offer | None = None
        best_key = (0.0, 0.0, 0)
        for index in contenders[order].tolist():
            if best is not None and bounds[index] >= best.end_ms * (1 - 2 * _ROUNDING):
                break
            offer = likely if index == first else self.offer(stage, index)
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
        if not brought[index] and not self.columns.shared(sha256)[index]:
            self._free_bytes[index] -= self.schedule.job.fragments[stage.name].peak_memory_bytes
            brought[index] = True
