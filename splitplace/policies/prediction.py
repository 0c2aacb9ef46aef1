"""Predict when all micro-batches of a task are done: one prediction for splitter, placer and simulator.

A variant is an out-tree of stages, so nothing here knows a chain from a star. The model:

* A call of a fragment on n images takes `(milliseconds_per_call + n * milliseconds_per_image) *
  reference_score / score` on a node of that score. Once the node has measured its own time per image, that
  replaces the scaled `milliseconds_per_image`.
* A tensor needs `bytes / bandwidth` of the slower of both links, one micro-batch after the other. One chunk
  of it needs the time of the faster link as well, because the broker sends on what it has in full
  (`relay_ms`). Then come the way between broker and nodes, and `HOP_MS` for broker, codec and event loops.
  Two stages on the same node also send their outputs through the broker.
* All tensors that this job brings to a node cross its link one after the other.
* A node does one call at a time, in the order of arrival. Of two stages that share a node, the later one
  begins when the earlier one is done with all micro-batches: exact if the inputs wait for the node,
  pessimistic if the node waits for its inputs.
* A fragment that a node has not loaded holds up its first call (`ClusterView.fragment_ready_ms`).
* The answer is complete when the last micro-batch of the last sink has reached the aggregator, and the
  sensor has it two hops later at most (aggregator, gateway): `RETURN_HOPS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import NamedTuple

from splitplace.messages.application import INPUT, Application, Fragment, Stage, Variant
from splitplace.messages.cluster import NodeState
from splitplace.policies.cluster import ClusterView
from splitplace.policies.cost import HOP_MS, RETURN_MS, relay_ms, transfer_ms, work_ms


@dataclass(frozen=True)
class Job:
    """One batch, run as one variant."""

    application: Application
    variant: Variant
    batch: int

    @cached_property
    def fragments(self) -> Mapping[str, Fragment]:
        """Fragment of every stage, by the stage's name."""
        known = {fragment.sha256: fragment for fragment in self.application.fragments}
        return {stage.name: known[stage.fragment] for stage in self.variant.stages}

    @cached_property
    def sinks(self) -> frozenset[str]:
        """Names of the stages whose output goes to the aggregator."""
        return frozenset(stage.name for stage in self.variant.sinks)

    @cached_property
    def micro_batch(self) -> int:
        """Images in one micro-batch: as the variant says, or the whole of a smaller batch."""
        return min(self.variant.micro_batch, self.batch)

    @cached_property
    def micro_batches(self) -> tuple[int, ...]:
        """Sizes of all micro-batches; only the last may be smaller."""
        full, rest = divmod(self.batch, self.micro_batch)
        return (self.micro_batch,) * full + ((rest,) if rest else ())


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected response and work of a job on given nodes."""

    response_ms: float
    """From `now_ms` until the gateway has the whole answer; infinite if a node has no link or no speed."""
    work_ms: Mapping[str, float]
    """Computing time of every stage, over all micro-batches."""


class Offer(NamedTuple):
    """Expected times of a stage on a node."""

    node: str
    finish_ms: Sequence[float]
    """When each micro-batch's output is ready."""
    end_ms: float
    """When the last output is ready; for a sink, when the gateway has it."""
    work_ms: float
    received_ms: float = 0.0
    """When the last input has crossed the node's link."""


@dataclass(slots=True)
class StageSchedule:
    """A job whose stages are put on nodes one by one, in the order of the variant.

    Args:
        cluster: what the nodes are busy with.
        job: what is to run.
        now_ms: the present moment.
        start_ms: when the gateway sends the inputs.
        due_ms: the task's deadline.
    """

    cluster: ClusterView
    job: Job
    now_ms: float
    start_ms: float
    due_ms: float = inf
    offers: dict[str, Offer] = field(default_factory=dict)
    """By stage."""
    _free_ms: dict[str, float] = field(default_factory=dict)
    _received_ms: dict[str, float] = field(default_factory=dict)
    """When the link of each node is free of this job's tensors."""
    _added: dict[str, dict[str, float]] = field(default_factory=dict)
    """Memory of the fragments that this job brings to each node."""

    def fits(self, stage: Stage, node: str) -> bool:
        """Whether the node has memory for the stage's fragment, beside those that are needed there."""
        added = self._added.get(node, {})
        if stage.fragment in added or self.cluster.shares(node, stage.fragment):
            return True
        needed = self.cluster.needed_bytes(node, self.job.fragments[stage.name])
        return needed + sum(added.values()) <= self.cluster.free_bytes(node)

    def work_ms(self, stage: Stage, node: str) -> float:
        """Return the computing time of a stage on a node, over all micro-batches; infinite without speed."""
        speed = self._speed(self.job.fragments[stage.name], node)
        return work_ms(len(self.job.micro_batches), self.job.batch, *speed)

    def free_ms(self, node: str) -> float:
        """Return when the node is free, after its earlier work and what this schedule has put on it."""
        if node not in self._free_ms:
            self._free_ms[node] = self.cluster.ready_ms(node, self.now_ms, due_ms=self.due_ms)
        return self._free_ms[node]

    def offer(self, stage: Stage, node: str) -> Offer:
        """Return the expected times of a stage on a node, given the stages that were put before."""
        job = self.job
        fragment = job.fragments[stage.name]
        each_call_ms, each_image_ms = self._speed(fragment, node)
        state = self.cluster.nodes[node]
        input_ms, hop_ms = self._way(stage, fragment, state)
        if stage.source == INPUT:
            sources: Sequence[float] = (self.start_ms,) * len(job.micro_batches)
        else:
            sources = self.offers[stage.source].finish_ms
        free_ms = max(self.free_ms(node), self.cluster.fragment_ready_ms(node, fragment, self.now_ms))
        received_ms = self._received_ms.get(node, 0.0)
        finish_ms = []
        for source_ms, images in zip(sources, job.micro_batches, strict=True):
            # Conditions instead of max(): the inner loop of every decision, a fifth faster so.
            received_ms = source_ms if source_ms > received_ms else received_ms  # noqa: FURB136
            received_ms += images * input_ms
            arrived_ms = received_ms + hop_ms
            free_ms = arrived_ms if arrived_ms > free_ms else free_ms  # noqa: FURB136
            free_ms += each_call_ms + images * each_image_ms
            finish_ms.append(free_ms)
        end_ms = finish_ms[-1]
        if stage.name in job.sinks:
            output_ms = transfer_ms(fragment.output.bytes_per_image, state.up)
            sent_ms = 0.0
            for ready_ms, images in zip(finish_ms, job.micro_batches, strict=True):
                sent_ms = max(ready_ms, sent_ms) + images * output_ms
            end_ms = sent_ms + state.latency_ms + RETURN_MS
        computing_ms = work_ms(len(job.micro_batches), job.batch, each_call_ms, each_image_ms)
        return Offer(node, finish_ms, end_ms, computing_ms, received_ms)

    def _way(self, stage: Stage, fragment: Fragment, state: NodeState) -> tuple[float, float]:
        """Return the time of an image on its way to a node, and the time of a hop besides."""
        size = fragment.input.bytes_per_image
        down = state.link_megabytes_per_second
        if stage.source == INPUT:
            return transfer_ms(size, down), HOP_MS + state.latency_ms
        source = self.cluster.nodes[self.offers[stage.source].node]
        relay = relay_ms(size * self.job.micro_batch, max(source.up, down))
        return transfer_ms(size, min(source.up, down)), HOP_MS + source.latency_ms + state.latency_ms + relay

    def put(self, stage: Stage, offer: Offer) -> None:
        """Take an offer made for the stage."""
        self.offers[stage.name] = offer
        self._free_ms[offer.node] = offer.finish_ms[-1]
        self._received_ms[offer.node] = offer.received_ms
        self._reserve(stage, offer.node)

    def reserve(self, stage: Stage, node: str) -> None:
        """Count memory and work of a stage on a node, without its inputs."""
        self._free_ms[node] = self.free_ms(node) + self.work_ms(stage, node)
        self._reserve(stage, node)

    def copy(self) -> "StageSchedule":
        """Return an independent copy."""
        return replace(
            self,
            offers=dict(self.offers),
            _free_ms=dict(self._free_ms),
            _received_ms=dict(self._received_ms),
            _added={node: dict(added) for node, added in self._added.items()},
        )

    def prediction(self) -> Estimate:
        """Return the estimate, once every stage was put on a node."""
        end_ms = max(offer.end_ms for name, offer in self.offers.items() if name in self.job.sinks)
        work_by_stage = {name: offer.work_ms for name, offer in self.offers.items()}
        return Estimate(end_ms - self.now_ms, work_by_stage)

    def _reserve(self, stage: Stage, node: str) -> None:
        if not self.cluster.shares(node, stage.fragment):
            memory = self.cluster.needed_bytes(node, self.job.fragments[stage.name])
            self._added.setdefault(node, {})[stage.fragment] = memory

    def _speed(self, fragment: Fragment, node: str) -> tuple[float, float]:
        """Return the time of a call and the time of an image in it."""
        job = self.job
        return self.cluster.speed(node, fragment, job.application.reference_score, len(job.micro_batches))


def predict(
    cluster: ClusterView,
    job: Job,
    nodes: Mapping[str, str],
    now_ms: float,
    *,
    start_ms: float | None = None,
    due_ms: float = inf,
    idle: bool = False,
) -> Estimate:
    """Estimate a job with its stages on given nodes.

    Args:
        cluster: what the nodes are busy with.
        job: what is to run.
        nodes: node of every stage, by the stage's name.
        now_ms: the present moment.
        start_ms: when the gateway sends the inputs; default now.
        due_ms: the task's deadline.
        idle: as if the nodes had no other work.

    Raises:
        KeyError: a stage has no node, or its node is not alive.
    """
    free_ms = dict.fromkeys(nodes.values(), now_ms) if idle else {}
    schedule = StageSchedule(
        cluster, job, now_ms, now_ms if start_ms is None else start_ms, due_ms, _free_ms=free_ms
    )
    for stage in job.variant.stages:
        schedule.put(stage, schedule.offer(stage, nodes[stage.name]))
    return schedule.prediction()
