"""All nodes at once, beside a schedule: where a stage fits, and how soon it could end there at best.

A schedule computes the exact times for one node. This computes lower bounds for all nodes in a few array
operations, so that only nodes that may win need an exact offer.
"""

from collections.abc import Sequence

import numpy as np

from splitplace.messages.application import INPUT, Fragment, Stage
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.policies.cost import RETURN_HOPS, Flags, Floats
from splitplace.policies.placement.room import Room
from splitplace.policies.prediction import Offer, StageSchedule

_ROUNDING = 1e-12
"""Relative error of sums: a bound and the exact figure are added up in different orders."""


def ahead(soonest_ms: float, end_ms: float) -> bool:
    """Whether something that ends at `soonest_ms` at best may end before `end_ms`, by more than rounding."""
    return soonest_ms < end_ms * (1 - 2 * _ROUNDING)


class Board:
    """A schedule and its cluster as arrays: rows are the job's S stages, columns the N nodes."""

    def __init__(self, schedule: StageSchedule, usable: Flags, room: Room | None = None) -> None:
        """Make a board for an empty schedule.

        Args:
            schedule: holds the stages that were put; all must be put through the board.
            usable: [N] nodes that may be used.
            room: the memory of the nodes, if the caller has it already.
        """
        columns, job = schedule.cluster.columns, schedule.job
        stages = job.variant.stages
        fragments = [job.fragments[stage.name] for stage in stages]
        self.schedule = schedule
        self.columns = columns
        self._usable = usable
        self._row = {stage.name: row for row, stage in enumerate(stages)}
        self._ready_ms = columns.ready_ms(schedule.now_ms, schedule.due_ms)
        self.free_ms = self._ready_ms.copy()
        """[N] When each node is free, after the stages that were put on it."""
        calls = (job.application.reference_score, len(job.micro_batches), job.batch)
        self._work_ms = np.array([columns.work_ms(fragment, *calls) for fragment in fragments])
        self._room = Room(job, columns, usable) if room is None else room
        self._input_bytes = np.array([fragment.input_bytes_per_image for fragment in fragments])
        self._returns_ms = self._all_returns_ms()
        start_ms = schedule.start_ms
        self._inputs_ms = self._received_ms(
            self._input_bytes[:, None] * columns.byte_ms,
            start_ms,
            start_ms,
            columns.latency_ms,
            job.micro_batches[0],
        )
        """[S, N] each: when the first and the last input could arrive, for stages that read the task."""

    def _all_returns_ms(self) -> dict[str, Floats]:
        """Return [N] the time to bring the last output of each sink to the gateway."""
        job = self.schedule.job
        sinks = [name for name in self._row if name in job.sinks]
        last_bytes = np.array([job.fragments[name].output_bytes_per_image for name in sinks])
        last_bytes *= job.micro_batches[-1]
        returns_ms = last_bytes[:, None] * self.columns.up_byte_ms + self.columns.latency_ms
        returns_ms += RETURN_HOPS * self.schedule.cluster.hop_ms
        return dict(zip(sinks, returns_ms, strict=True))

    def _source(self, stage: Stage) -> Fragment:
        """Return the fragment whose outputs a stage reads."""
        return self.schedule.job.fragments[stage.source]

    def fits(self, stage: Stage) -> Flags:
        """Return [N] which usable nodes have memory for a stage, beside those put there."""
        return self._room.fits(stage)

    def work_ms(self, stage: Stage) -> Floats:
        """Return [N] the computing time of a stage on each node."""
        work_ms: Floats = self._work_ms[self._row[stage.name]]
        return work_ms

    def soonest_ms(self, stage: Stage) -> Floats:
        """Return [N] when a stage, whose source was put before, could end on each node at best."""
        row = self._row[stage.name]
        sizes, size, way_ms = self.schedule.job.micro_batches, self._input_bytes[row], self.columns.latency_ms
        if stage.source == INPUT:
            ready_ms: Sequence[float] = (self.schedule.start_ms,) * len(sizes)
            first_ms, last_ms = self._inputs_ms[0][row], self._inputs_ms[1][row]
        else:
            source = self.schedule.offers[stage.source]
            senders = [self.columns.index[share.node] for share in source.shares]
            up_byte_ms, latency_ms, ratios = (
                self.columns.up_byte_ms,
                self.columns.latency_ms,
                self.columns.output_ratio(self._source(stage)),
            )
            size *= min([ratios[sender] for sender in senders])
            ready_ms = source.finish_ms
            first_ms, last_ms, way_ms = self._passed_on_ms(
                size,
                min([up_byte_ms[sender] for sender in senders]),
                min([latency_ms[sender] for sender in senders]),
                min(ready_ms),
                max(ready_ms),
                # Of several replicas, that of the last micro-batch, which may be smaller, may be the first.
                first_images=sizes[0] if len(senders) == 1 else sizes[-1],
            )
        broker = self.schedule.broker
        if broker.byte_ms:
            crossed_ms = broker.crossed_ms(ready_ms, [images * size for images in sizes])
            way_ms = way_ms + self.schedule.cluster.hop_ms
            first_ms = np.maximum(first_ms, min(crossed_ms) + way_ms)
            last_ms = np.maximum(last_ms, max(crossed_ms) + way_ms)
        return self._bounds(stage, self.free_ms, first_ms, last_ms)[1]

    def alone_before(self, limit_ms: float) -> list[tuple[int, float]]:
        """Return nodes that could end all stages before a moment, with that time; the soonest first.

        As if nothing had been put on the board. A lead within rounding does not count.
        """
        limit_ms *= 1 - 2 * _ROUNDING
        hop_ms = self.schedule.cluster.hop_ms
        computed_ms = np.maximum(self._ready_ms, self.schedule.start_ms + hop_ms)
        computed_ms += self._work_ms.sum(axis=0)
        candidates = self._usable & ((computed_ms + RETURN_HOPS * hop_ms) * (1 - _ROUNDING) < limit_ms)
        if np.count_nonzero(candidates):
            candidates &= self._room_alone()
        if not np.count_nonzero(candidates):
            return []
        soonest_ms = self._soonest_alone_ms()
        nodes = np.flatnonzero(candidates & (soonest_ms < limit_ms))
        nodes = nodes[np.argsort(soonest_ms[nodes], kind="stable")]
        return list(zip(nodes.tolist(), soonest_ms[nodes].tolist(), strict=True))

    def _room_alone(self) -> Flags:
        """Return [N] where all stages fit together, as if nothing had been put on the board."""
        needed_bytes = np.zeros(len(self._usable))
        unique = {fragment.sha256: fragment for fragment in self.schedule.job.fragments.values()}
        for sha256, fragment in unique.items():
            needed_bytes += np.where(self.columns.shared(sha256), 0.0, self.columns.needed_bytes(fragment))
        room: Flags = (needed_bytes == 0) | (needed_bytes <= self.columns.free_bytes())
        return room

    def _soonest_alone_ms(self) -> Floats:
        """Return [N] when the job could end at best with all of its stages on the same node."""
        schedule, columns = self.schedule, self.columns
        micro_batches = len(schedule.job.micro_batches)
        free_ms = ends_ms = self._ready_ms
        finish_ms: dict[str, tuple[Floats, Floats]] = {}
        carried_bytes: dict[str, Floats | float] = {INPUT: 0.0}
        for row, stage in enumerate(schedule.job.variant.stages):
            size: Floats | float = self._input_bytes[row]
            way_ms = columns.latency_ms
            ready_ms: tuple[Floats | float, Floats | float] = (schedule.start_ms, schedule.start_ms)
            if stage.source == INPUT:
                first_ms, last_ms = self._inputs_ms[0][row], self._inputs_ms[1][row]
            else:
                size = size * columns.output_ratio(self._source(stage))
                ready_ms = finish_ms[stage.source]
                first_ms, last_ms, way_ms = self._passed_on_ms(
                    size, columns.up_byte_ms, columns.latency_ms, *ready_ms
                )
            if schedule.broker.byte_ms:
                carried = carried_bytes[stage.source] + schedule.job.batch * size
                carried_bytes[stage.name] = carried
                if stage.source == INPUT:  # all branches' inputs are there at the start
                    carried_bytes[INPUT] = carried
                crossed_ms = self._crossed_ms(ready_ms, size, carried)
                way_ms = way_ms + schedule.cluster.hop_ms
                first_ms = np.maximum(first_ms, crossed_ms[0] + way_ms)
                last_ms = np.maximum(last_ms, crossed_ms[1] + way_ms)
            begin_ms = self._begin_ms(stage, free_ms, first_ms)
            free_ms, end_ms = self._bounds(stage, free_ms, first_ms, last_ms)
            finish_ms[stage.name] = (begin_ms + self._work_ms[row] / micro_batches, free_ms)
            ends_ms = np.maximum(ends_ms, end_ms)
        return ends_ms

    def _crossed_ms(
        self, ready_ms: tuple[Floats | float, Floats | float], size: Floats | float, carried: Floats | float
    ) -> tuple[Floats | float, Floats | float]:
        """Return when the broker's link could have carried a stage's first input, and its last, at best.

        Args:
            ready_ms: when each is ready at its source.
            size: bytes of an image of it.
            carried: bytes of all inputs that cross before the last, and of that.
        """
        sizes, byte_ms = self.schedule.job.micro_batches, self.schedule.broker.byte_ms
        first_ms, last_ms = ready_ms
        crossed_ms = np.maximum(
            last_ms + sizes[-1] * size * byte_ms, first_ms + self.schedule.job.batch * size * byte_ms
        )
        crossed_ms = np.maximum(crossed_ms, self.schedule.start_ms + carried * byte_ms)
        return (crossed_ms if len(sizes) == 1 else first_ms + sizes[0] * size * byte_ms), crossed_ms

    def _passed_on_ms(
        self,
        size: Floats | float,
        up_byte_ms: Floats | float,
        latency_ms: Floats | float,
        first_ms: Floats | float,
        last_ms: Floats | float,
        *,
        first_images: int | None = None,
    ) -> tuple[Floats, Floats, Floats]:
        """Return the same as `_received_ms` for inputs that another node sends, and `way_ms`.

        Args:
            size: bytes of an image of it.
            up_byte_ms: time of a byte on the sender's link.
            latency_ms: time between the sender and the broker.
            first_ms: when its first input is ready at its source.
            last_ms: when its last input is ready at its source.
            first_images: images in the first input, if it may not be the first by number.
        """
        columns = self.columns
        chunk_bytes = np.minimum(size * self.schedule.job.micro_batch, CHUNK_BYTES)
        relay_ms = chunk_bytes * np.minimum(columns.byte_ms, up_byte_ms)
        image_ms = size * np.maximum(columns.byte_ms, up_byte_ms)
        way_ms = columns.latency_ms + latency_ms + relay_ms
        images = self.schedule.job.micro_batches[0] if first_images is None else first_images
        return *self._received_ms(image_ms, first_ms, last_ms, way_ms, images), way_ms

    def _received_ms(
        self,
        image_ms: Floats,
        first_ms: Floats | float,
        last_ms: Floats | float,
        way_ms: Floats,
        images: int,
    ) -> tuple[Floats, Floats]:
        """Return when each node could have a stage's first input, and when its last, at best.

        Args:
            image_ms: time to bring an image of it to each node.
            first_ms: when its first input is ready at its source.
            last_ms: when its last input is ready at its source.
            way_ms: time of a hop besides, without the hop itself.
            images: number of them in the first input.
        """
        schedule, sizes = self.schedule, self.schedule.job.micro_batches
        way_ms = way_ms + schedule.cluster.hop_ms
        first_ms = np.maximum(first_ms, self.columns.link_free_ms)
        received_ms = first_ms + images * image_ms
        sent_ms = received_ms
        if len(sizes) > 1:
            sent_ms = np.maximum(first_ms + schedule.job.batch * image_ms, last_ms + sizes[-1] * image_ms)
        return received_ms + way_ms, sent_ms + way_ms

    def _begin_ms(self, stage: Stage, free_ms: Floats, first_ms: Floats) -> Floats:
        """Return when each node could begin a stage whose first input it has at `first_ms`."""
        begin_ms: Floats = np.maximum(free_ms, first_ms)
        if not self.columns.loaded_everywhere(stage.fragment):
            fragment = self.schedule.job.fragments[stage.name]
            begin_ms = np.maximum(begin_ms, self.columns.fragment_ready_ms(fragment, self.schedule.now_ms))
        return begin_ms

    def _bounds(
        self, stage: Stage, free_ms: Floats, first_ms: Floats, last_ms: Floats
    ) -> tuple[Floats, Floats]:
        """Return lower bounds for a stage, as if only its first or only its last micro-batch had to wait.

        Args:
            stage: a stage of the job.
            free_ms: when each node is free for it.
            first_ms: when each node has the first input at best.
            last_ms: when each node has the last input at best.

        Returns:
            When each node is done with it, and when the output is at its destination.
        """
        job = self.schedule.job
        work_ms = self._work_ms[self._row[stage.name]]
        done_ms = self._begin_ms(stage, free_ms, first_ms) + work_ms
        if len(job.micro_batches) > 1:
            done_ms = np.maximum(done_ms, last_ms + work_ms * (job.micro_batches[-1] / job.batch))
        return_ms = self._returns_ms.get(stage.name)
        end_ms = done_ms if return_ms is None else done_ms + return_ms
        return done_ms, end_ms * (1 - _ROUNDING)

    def best_offer(self, stage: Stage) -> Offer | None:
        """Return the offer that ends first; of equal ones, by the node's free time, then its name."""
        fits = self.fits(stage)
        bounds = np.where(fits, self.soonest_ms(stage), np.inf)
        first = int(bounds.argmin())
        if not fits[first]:  # no node fits, or none of those that do has both a link and a speed
            if not fits.any():
                return None
            first = int(fits.argmax())
        likely = self.offer(stage, first)
        as_soon = fits & (bounds <= likely.end_ms)
        if np.count_nonzero(as_soon) == 1:
            return likely
        contenders = np.flatnonzero(as_soon)
        order = np.lexsort((self.columns.rank[contenders], self.free_ms[contenders], bounds[contenders]))
        best: Offer | None = None
        best_key = (0.0, 0.0, 0)
        for index in contenders[order].tolist():
            if best is not None and not ahead(bounds[index], best.end_ms):
                break
            offer = likely if index == first else self.offer(stage, index)
            key = (offer.end_ms, float(self.free_ms[index]), int(self.columns.rank[index]))
            if best is None or key < best_key:
                best, best_key = offer, key
        return best

    def put_all(self) -> Stage | None:
        """Put every stage where it ends first. Return the first one that no node has memory for, if any."""
        for stage in self.schedule.job.variant.stages:
            best = self.best_offer(stage)
            if best is None:
                return stage
            self.put(stage, best)
        return None

    def soonest_nodes(self, stage: Stage, count: int) -> tuple[str, ...]:
        """Return the nodes that could end a stage first at best, the soonest first.

        However many nodes there are, only so many are considered: of equal ones the first are as good as all.
        """
        bounds = np.where(self.fits(stage), self.soonest_ms(stage), np.inf)
        soonest = (
            np.argpartition(bounds, count - 1)[:count] if count < len(bounds) else np.arange(len(bounds))
        )
        if count < len(bounds):  # all that are as good as the last of them, so that names decide
            soonest = np.flatnonzero(bounds <= bounds[soonest].max())
        order = np.lexsort((self.columns.rank[soonest], self.free_ms[soonest], bounds[soonest]))
        kept = [index for index in soonest[order][:count].tolist() if bounds[index] < np.inf]
        return tuple(self.columns.names[index] for index in kept)

    def offer(self, stage: Stage, index: int) -> Offer:
        """Return the expected times of a stage on a node."""
        return self.schedule.offer(stage, self.columns.names[index])

    def put(self, stage: Stage, offer: Offer) -> None:
        """Take an offer made for the stage."""
        self.schedule.put(stage, offer)
        for share in offer.shares:
            self._occupy(stage, self.columns.index[share.node], offer.until_ms(share))

    def reserve(self, stage: Stage, index: int, work_ms: float) -> None:
        """Count memory and work of a stage on a node, without its inputs."""
        self._occupy(stage, index, float(self.free_ms[index]) + work_ms)

    def _occupy(self, stage: Stage, index: int, until_ms: float) -> None:
        self.free_ms[index] = until_ms
        self._room.put(stage, index)
